package ipvs

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// tableName is that of our nftables table, one for each address family.
const tableName = "waggle"

// guard keeps netfilter's own address translation off VIPs in the machine's
// namespace, and sends answers back to us. A port mapping of a container runtime
// translates every packet to that port of a local address, which VIPs are: a
// VIP's packet is "translated" to where it goes already, which is final. What is
// forwarded from others through IPVS gets an address of ours, since the backend
// would answer whom it sees. A nil guard does nothing.
type guard struct {
	ns     netns.NsHandle
	log    *zap.Logger
	err    error // of the last change
	count  refs
	tables [2]table // IPv4, IPv6
}

// table is the guard of one address family.
type table struct {
	t    *nftables.Table
	vips *nftables.Set
}

// priority is before that of port mappings, which is -100.
const priority = -110

func newGuard(ns netns.NsHandle, log *zap.Logger) *guard {
	g := &guard{ns: ns, log: log, count: refs{}}
	for i, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		g.tables[i].t = &nftables.Table{Family: family, Name: tableName}
		g.tables[i].vips = &nftables.Set{Table: g.tables[i].t, Name: "vips", KeyType: nftables.TypeIPAddr}
		if family == nftables.TableFamilyIPv6 {
			g.tables[i].vips.KeyType = nftables.TypeIP6Addr
		}
	}
	return g
}

// check notes how the last change of the rules ended. Without them VIPs work all
// the same where no port mapping is in the way, so an error stops nothing.
func (g *guard) check(doing string, err error) {
	if err != nil && (g.err == nil || g.err.Error() != err.Error()) {
		g.log.Warn("nftables rules not up to date; a port mapping may take a VIP's traffic", zap.String("doing", doing), zap.Error(err))
	}
	g.err = err
}

func (g *guard) of(a netip.Addr) *table {
	if a.Is4() {
		return &g.tables[0]
	}
	return &g.tables[1]
}

// enter counts one service more at a, and guards a if it is the first.
func (g *guard) enter(a netip.Addr) {
	if g == nil {
		return
	}
	if g.count[a]++; g.count[a] == 1 {
		g.check("guard "+a.String(), g.element(a, (*nftables.Conn).SetAddElements))
	}
}

// leave counts one service less.
func (g *guard) leave(a netip.Addr) {
	if g == nil {
		return
	}
	if g.count[a]--; g.count[a] == 0 {
		delete(g.count, a)
		g.check("let go of "+a.String(), g.element(a, (*nftables.Conn).SetDeleteElements))
	}
}

func (g *guard) element(a netip.Addr, do func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	c, err := g.conn()
	if err != nil {
		return err
	}
	if err := do(c, g.of(a).vips, []nftables.SetElement{{Key: a.AsSlice()}}); err != nil {
		return err
	}
	return c.Flush()
}

// adopt makes our tables hold just addrs, one for each service. It replaces
// what is there in one transaction.
func (g *guard) adopt(addrs []netip.Addr) {
	if g == nil {
		return
	}
	g.count = refs{}
	for _, a := range addrs {
		g.count[a]++
	}
	g.check("replace table "+tableName, g.replace())
}

func (g *guard) replace() error {
	c, err := g.conn()
	if err != nil {
		return err
	}
	if g.intact(c) {
		return nil
	}
	for i := range g.tables {
		t := &g.tables[i]
		c.AddTable(t.t) // so that there is one to delete
		c.DelTable(t.t)
		c.AddTable(t.t)
		if err := c.AddSet(t.vips, nil); err != nil {
			return err
		}
		t.rules(c)
	}
	if err := c.Flush(); err != nil {
		return err
	}
	n := 0
	for a := range g.count {
		if err := c.SetAddElements(g.of(a).vips, []nftables.SetElement{{Key: a.AsSlice()}}); err != nil {
			return err
		}
		// One message to the kernel holds no more than its socket's buffer.
		if n++; n%512 == 0 {
			if err := c.Flush(); err != nil {
				return err
			}
		}
	}
	return c.Flush()
}

func (g *guard) conn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithNetNSFd(int(g.ns)))
}

// intact reports whether the kernel holds our rules with just the addresses
// that they should have.
func (g *guard) intact(c *nftables.Conn) bool {
	here := 0
	for i := range g.tables {
		t := &g.tables[i]
		for _, chain := range []string{"output", "prerouting", "postrouting"} {
			rules, err := c.GetRules(t.t, &nftables.Chain{Name: chain, Table: t.t})
			if err != nil || len(rules) != 1 {
				return false
			}
		}
		elements, err := c.GetSetElements(t.vips)
		if err != nil {
			return false
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); !ok || g.count[a] == 0 {
				return false
			}
		}
		here += len(elements)
	}
	return here == len(g.count)
}

// rules are, as nft(8) writes them:
//
//	chain output      { type nat hook output priority -110; ip daddr @vips dnat to ip daddr }
//	chain prerouting  { type nat hook prerouting priority -110; ip daddr @vips dnat to ip daddr }
//	chain postrouting { type nat hook postrouting priority srcnat; ct original ip daddr @vips fib saddr type != local masquerade }
func (t *table) rules(c *nftables.Conn) {
	offset, size, family := uint32(16), uint32(4), uint32(unix.NFPROTO_IPV4)
	if t.t.Family == nftables.TableFamilyIPv6 {
		offset, size, family = 24, 16, unix.NFPROTO_IPV6
	}
	inSet := &expr.Lookup{SourceRegister: 1, SetName: t.vips.Name, SetID: t.vips.ID}
	for name, hook := range map[string]*nftables.ChainHook{"output": nftables.ChainHookOutput, "prerouting": nftables.ChainHookPrerouting} {
		chain := c.AddChain(&nftables.Chain{
			Name: name, Table: t.t, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: nftables.ChainPriorityRef(priority),
		})
		c.AddRule(&nftables.Rule{Table: t.t, Chain: chain, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
			inSet,
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1},
		}})
	}
	chain := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t.t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	original := &expr.Ct{Register: 1, Key: expr.CtKeyDST, Direction: 0}
	c.AddRule(&nftables.Rule{Table: t.t, Chain: chain, Exprs: []expr.Any{
		original, inSet,
		&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Masq{},
	}})
}

// removeGuard takes our tables away and reports whether there were any.
func removeGuard() (bool, error) {
	c, err := nftables.New() // the calling process' namespace, as in openSpace
	if err != nil {
		return false, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	found := false
	for _, t := range tables {
		if t.Name == tableName && (t.Family == nftables.TableFamilyIPv4 || t.Family == nftables.TableFamilyIPv6) {
			c.DelTable(t)
			found = true
		}
	}
	return found, c.Flush()
}
