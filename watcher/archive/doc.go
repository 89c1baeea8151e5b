// Package archive keeps the last Snapshot on disk, so that a daemon that starts
// while the scheduler is away serves what ran when it last knew. It is a Source
// around another one and knows no scheduler.
package archive
