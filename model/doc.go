// Package model holds the facts the daemon works on: tasks, their ports and
// addresses, the apps they group into, agents, frameworks, and the Snapshot
// that carries them all. It knows no scheduler, no DNS and no kernel, and
// imports the standard library only.
//
// Every value reachable from a Snapshot is immutable once published and safe
// for concurrent use. What did not change keeps its pointer from one Snapshot
// to the next, so a later stage finds what to redo by comparing pointers.
package model
