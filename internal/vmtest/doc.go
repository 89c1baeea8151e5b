// Package vmtest runs test binaries of this project on another kernel: it boots
// Debian's in qemu, with software emulation so that it works anywhere, from an
// initramfs that holds nothing but the binaries, the modules they need and a
// small first process (guest). For tests only.
package vmtest

// InMachine names the environment variable that test binaries see in a machine:
// the release of its kernel.
const InMachine = "WAGGLE_VM_KERNEL"
