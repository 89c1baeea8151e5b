package vmtest

import (
	"io"
	"os"
	"os/exec"
	"testing"

	"waggle/internal/testnet"
)

// modules are what tests of this project need beyond what Debian has built in.
var modules = []string{
	"ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_sh", "ip_vs_mh",
	"veth", "dummy", "bridge", "nf_tables", "nft_chain_nat", "nft_nat", "nft_numgen", "nft_ct", "nft_masq", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib", "nf_conntrack_netlink",
	"cls_bpf", "sch_ingress", "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "ipv6", "xt_nat", "ip_tables", "iptable_nat",
	"nfsv4",
}

// New returns a machine with the newest kernel of this Debian and the modules
// that tests of this project need. It skips the test where that cannot be had.
func New(tb testing.TB) Machine {
	tb.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		testnet.Skip(tb, err.Error())
	}
	k, err := DebianKernel()
	if err != nil {
		testnet.Skip(tb, err.Error())
	}
	return Machine{Kernel: k, Modules: modules}
}

// Log returns where to show what a machine says: nowhere, unless tests are
// verbose.
func Log() io.Writer {
	if testing.Verbose() {
		return os.Stdout
	}
	return io.Discard
}
