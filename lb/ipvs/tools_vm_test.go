//go:build vmtest

package ipvs

import (
	"math/rand/v2"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func newRand() *rand.Rand { return rand.New(rand.NewPCG(5, 6)) }

// mapPort publishes a port as container runtimes do, as nft(8) writes it:
//
//	chain output { type nat hook output priority dstnat; fib daddr type local tcp dport PORT dnat to TO }
func mapPort(port uint16, to netip.AddrPort) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	translate(c, "runtime", nftables.ChainHookOutput, nftables.ChainPriorityNATDest,

		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	)
	return c.Flush()
}

// translate adds a table of IPv4 with one chain of nat and one rule.
func translate(c *nftables.Conn, table string, hook *nftables.ChainHook, priority *nftables.ChainPriority, rule ...expr.Any) {
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: table})
	chain := c.AddChain(&nftables.Chain{Name: "translate", Table: t, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: rule})
}
