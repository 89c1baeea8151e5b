package file

import "time"

// Config says which files to read and how to notice that they change.
type Config struct {
	// Paths are files, or folders of which every *.yaml, *.yml and *.json is
	// read that does not start with a dot; folders below are left alone.
	Paths []string
	// Settle is how long the files must be left alone before they are read, so
	// that an editor that moves the old file away before it writes the new one
	// takes nothing from what is served. Longer delays every change.
	Settle time.Duration
	// Reread is how often the files are read although nothing said that they
	// changed: not every file system tells (NFS does not of other machines).
	Reread time.Duration
	// MaxSize bounds one file, in bytes.
	MaxSize int64
}

// DefaultConfig reads no file, 50 ms after a change and every 30 s, of at most
// 16 MiB.
func DefaultConfig() Config {
	return Config{Settle: 50 * time.Millisecond, Reread: 30 * time.Second, MaxSize: 16 << 20}
}
