// Package bench measures the daemon's parts against their peers, as Go
// benchmarks: run it with `make bench`. What is claimed is a ratio of things
// measured in turn within one run, with its spread; these machines are noisy.
// Nothing imports it.
package bench
