package ipvs

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/ipvs"

	"waggle/internal/outside"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// dcosCase is one case of what DC/OS' daemon does with the kernel.
type dcosCase struct {
	Name, Group   string
	Input, Expect json.RawMessage
}

// casesFile is the environment variable that names the file of the cases where
// they are not beside the project.
const casesFile = "WAGGLE_DCOS_CASES"

// dcosCases are those of DC/OS' manager and kernel parts, by name.
func dcosCases(t *testing.T) map[string]dcosCase {
	t.Helper()
	var all []dcosCase
	if path := os.Getenv(casesFile); path != "" {
		text, err := os.ReadFile(path)
		if err := errors.Join(err, json.Unmarshal(text, &all)); err != nil {
			t.Fatal(err)
		}
	} else {
		outside.JSON(t, &all, "conformance", "dcos-net.json")
	}
	out := map[string]dcosCase{}
	for _, c := range all {
		if c.Group == "kernel" || c.Group == "manager" {
			out[c.Name] = c
		}
	}
	return out
}

// dcosDiffers are the cases that are not so here, and why.
var dcosDiffers = map[string]string{
	"manager/reach-one-down": "no node watches the others: which agents are lost is the master's to say, and who refuses is ejected (decision 38)",
	"manager/apply-order":    "a VIP is routed before IPVS has it and longer, so that no packet for it goes astray; names come last here too (TestAKernelFaultFreezesVIPNamesOnly in internal/agent)",
}

// dcosInMachine are the cases that need IPVS in a kernel.
var dcosInMachine = []string{
	"kernel/ipset-family", "kernel/ipvs-add", "kernel/ipvs-v6", "kernel/new-netns", "kernel/restart-x3", "kernel/route-host",
	"kernel/stale-after-restart", "manager/route-shared",
}

// dcosPure are the cases that need none.
var dcosPure = map[string]func(t *testing.T, c dcosCase){
	"kernel/ipvs-decode":    decodes,
	"manager/diff-add":      differences,
	"manager/diff-backends": differences,
	"manager/diff-mod":      differences,
	"manager/diff-same":     differences,
	"manager/diff-swap":     differences,
	"manager/diff-weight":   differences,
	"manager/pm-no-match":   unmapped,
	"manager/pm-old-record": unmapped,
	"manager/pm-udp":        unmapped,
}

// TestEveryCaseOfDCOSIsRunOrSaidToDiffer knows each case by name.
func TestEveryCaseOfDCOSIsRunOrSaidToDiffer(t *testing.T) {
	cases := dcosCases(t)
	known := slices.Concat(dcosInMachine, slices.Collect(maps.Keys(dcosDiffers)), slices.Collect(maps.Keys(dcosPure)))
	slices.Sort(known)
	if d := cmp.Diff(slices.Sorted(maps.Keys(cases)), known); d != "" {
		t.Errorf("cases (-there +known): %s", d)
	}
	for name, run := range dcosPure {
		t.Run(name, func(t *testing.T) { run(t, cases[name]) })
	}
}

func (c dcosCase) into(t *testing.T, input, expect any) {
	t.Helper()
	if err := errors.Join(json.Unmarshal(c.Input, input), json.Unmarshal(c.Expect, expect)); err != nil {
		t.Fatal(err)
	}
}

// backends are written as texts, or as plain numbers where any will do.
type backendList []json.RawMessage

func (l backendList) dests() map[netip.AddrPort]int {
	var list []string
	for _, raw := range l {
		text := strings.Trim(string(raw), `"`)
		if !strings.Contains(text, ":") {
			text = "10.0.0." + text + ":80"
		}
		list = append(list, text)
	}
	return dests(list...)
}

// differences holds the steps from one table to the next against a case.
func differences(t *testing.T, c dcosCase) {
	var input struct{ Old, New map[string]backendList }
	var expect struct {
		Add, Del map[string]backendList
		Mod      map[string]struct {
			Add, Del     backendList
			WeightChange []string `json:"weight_change"`
		}
	}
	c.into(t, &input, &expect)
	all := maps.Clone(input.Old)
	maps.Copy(all, input.New)
	for f := range all {
		var old, new *service
		if l, ok := input.Old[f]; ok {
			old = &service{dests: l.dests()}
		}
		if l, ok := input.New[f]; ok {
			new = &service{dests: l.dests()}
		}
		want := expect.Mod[f]
		added, isNew := expect.Add[f]
		_, isGone := expect.Del[f]
		add, del, set := map[netip.AddrPort]int{}, map[netip.AddrPort]int{}, []string(nil)
		for _, e := range edits(old, new) {
			switch e.kind {
			case addService:
				want.Add = added
				isNew = !isNew
			case delService:
				isGone = !isGone
			case addDest:
				add[e.dest] = e.weight
			case delDest:
				del[e.dest] = 1
			case setDest:
				set = append(set, fmt.Sprintf("%s -> %d", e.dest, e.weight))
			default:
				t.Errorf("the service itself is touched: %v", e)
			}
		}
		if isNew || isGone {
			t.Errorf("%s: service added or removed is not as expected", f)
		}
		same := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
		for _, d := range []string{cmp.Diff(want.Add.dests(), add, same), cmp.Diff(want.Del.dests(), del, same), cmp.Diff(fill(want.WeightChange), fill(set))} {
			if d != "" {
				t.Errorf("%s (-want +got): %s", f, d)
			}
		}
	}
}

func fill(list []string) []string { return append([]string{}, list...) }

// decodes reads a service and its destinations as the kernel has them.
func decodes(t *testing.T, c dcosCase) {
	var input struct {
		Service struct {
			AF       uint16
			Protocol uint16
			Address  string
			Port     uint16
			Sched    string
			Timeout  uint32
		}
		Destinations []string
	}
	var expect struct {
		Service      string
		Destinations []string
	}
	c.into(t, &input, &expect)
	ip := func(text string) net.IP {
		raw, err := hex.DecodeString(strings.Fields(text)[0])
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	f, s, ok := fromKernel(&ipvs.Service{
		Address: ip(input.Service.Address), Protocol: input.Service.Protocol, Port: input.Service.Port,
		SchedName: input.Service.Sched, Flags: flagHashed, AddressFamily: input.Service.AF,
	})
	if got := fmt.Sprintf("%s %s", f.Proto, f.Addr); !ok || got != expect.Service || s.flags != 0 {
		t.Errorf("service %q %+v, want %q", got, s, expect.Service)
	}
	for i, d := range input.Destinations {
		got := netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip(d))), input.Service.Port)
		if got.String() != expect.Destinations[i] || binary.BigEndian.Uint32(ip(d)) == 0 {
			t.Errorf("destination %s, want %s", got, expect.Destinations[i])
		}
	}
}

// unmapped are backends that stay what they are, whatever ports the machine
// maps: here all do, for they are reached as others reach them.
func unmapped(t *testing.T, c dcosCase) {
	var input struct {
		Backend, Protocol string
		Backends          []string
	}
	var expect struct {
		Backend  string
		Backends []string
	}
	c.into(t, &input, &expect)
	if input.Backend != "" {
		input.Backends, expect.Backends = []string{input.Backend}, []string{expect.Backend}
	}
	f := frontend("11.0.0.1:80", model.TCP)
	if input.Protocol == "udp" {
		f.Proto = model.UDP
	}
	row := &vip.Service{Frontend: f}
	for _, text := range input.Backends {
		if _, after, ok := strings.Cut(text, ": "); ok {
			text = after
		}
		addr, weight, _ := strings.Cut(text, " ")
		b := vip.Backend{Addr: netip.MustParseAddrPort(addr)}
		if weight == "w1" {
			b.Weight = 1
		}
		row.Backends = append(row.Backends, b)
	}
	rows := model.Groups[vip.Frontend, *vip.Service]{}.Edit()
	rows.Set(f, row)
	p := lb.Build(nil, &vip.Table{Services: rows.Groups()}, lb.DefaultConfig(), time.Now())
	planned, _ := p.Services.Get(f)
	got, err := wanted(planned, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(dests(expect.Backends...), got.dests, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("(-want +got): %s", d)
	}
}
