// Package answers has the kernel answer queries of this machine's processes that
// the daemon has answered before: a program on lo (Linux 6.6) makes them their own
// answers, so that no thread wakes up for them. The daemon says what is answered
// and for how long; nothing of it outlives the daemon. The other half is in
// bpf/answer.c.
package answers

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -type answer -type question -type path bpf bpf/answer.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
