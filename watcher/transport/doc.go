// Package transport speaks HTTP to schedulers: past the node's own resolver, by
// TLS, and with credentials that are read from files and given only to whom they
// are meant for. It knows no scheduler's API.
package transport
