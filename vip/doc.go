// Package vip turns a Snapshot into the Table of virtual services: it knows the
// grammar of VIP labels, how names fold to DNS labels, and which address a
// named VIP gets. It knows no DNS messages, no kernel and no scheduler's API.
//
// Reading order: labels.go (one label), ports.go (the labels of one task),
// claims.go (what one app asks for), alloc.go (names to addresses), build.go.
package vip
