// Package ebpf is a Dataplane on eBPF: programs at the root of cgroup v2 send
// connect(2) to a VIP to a backend, for every process and container of the
// node. It loads and attaches them, pins what must outlive the daemon, and
// brings the kernel's maps to a Plan. It knows no scheduler, no Table and no
// names. Start reading at Dataplane.Apply; the other half is in bpf/socket.c.
package ebpf

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -type event bpf bpf/socket.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -no-global-types -type doomed_key kill bpf/kill.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
