package archive

import "time"

// Config says where the last Snapshot is kept and how often it is written.
type Config struct {
	// Dir is the folder, made with mode 0700 if it is missing. Empty keeps
	// nothing.
	Dir string
	// Every is the least time between two writes. What was published less than
	// that before a crash is not known after it.
	Every time.Duration
	// Rest is how many times as long as the work of a write took, without waiting
	// for the disk, the next one waits at least: with 50 writing takes 2 % of a core at most, however large the
	// cluster is. 100 000 tasks take 0.2 s, hence wait 10 s.
	Rest int
}

// DefaultConfig keeps nothing; given a folder it writes once a second at most.
func DefaultConfig() Config {
	return Config{Every: time.Second, Rest: 50}
}
