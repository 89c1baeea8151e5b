package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	mdns "github.com/miekg/dns"

	"waggle/internal/dnspeer"
)

// plainArg starts the argument that says where to serve which zone file.
const plainArg = "plain:"

// plainServer is what one gets from the library in an afternoon, as a process
// of its own: this test binary.
func plainServer(tb testing.TB, zone dnspeer.Zone) dnspeer.Kind {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	path := tb.TempDir() + "/zone"
	var text strings.Builder
	for _, r := range zone.Records {
		fmt.Fprintf(&text, "%s %d IN %s %s\n", r.Name, r.TTL, r.Type, r.Data)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	return dnspeer.Other("miekg/dns", self, func(at netip.AddrPort) []string {
		return []string{"-test.run", "^TestPlainServer$", "-test.timeout", "0", "-test.v", plainArg + at.String() + "=" + path}
	})
}

// TestPlainServer is no test: run by plainServer it serves until it is killed.
func TestPlainServer(t *testing.T) {
	addr, path, ok := strings.Cut(strings.TrimPrefix(os.Args[len(os.Args)-1], plainArg), "=")
	if !ok || !strings.HasPrefix(os.Args[len(os.Args)-1], plainArg) {
		t.Skip("runs as a process of its own in make bench-dns only")
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records := map[string]map[uint16][]mdns.RR{}
	var soa mdns.RR
	zp := mdns.NewZoneParser(f, "", "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		h := rr.Header()
		if records[h.Name] == nil {
			records[h.Name] = map[uint16][]mdns.RR{}
		}
		records[h.Name][h.Rrtype] = append(records[h.Name][h.Rrtype], rr)
		if h.Rrtype == mdns.TypeSOA {
			soa = rr
		}
	}
	server := &mdns.Server{Addr: addr, Net: "udp", Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		r := new(mdns.Msg).SetReply(q)
		r.Authoritative = true
		name := strings.ToLower(q.Question[0].Name)
		r.Answer = records[name][q.Question[0].Qtype]
		for _, rr := range r.Answer {
			if srv, ok := rr.(*mdns.SRV); ok {
				r.Extra = append(r.Extra, records[srv.Target][mdns.TypeA]...)
			}
		}
		if len(r.Answer) == 0 {
			r.Ns = []mdns.RR{soa}
			if records[name] == nil {
				r.Rcode = mdns.RcodeNameError
			}
		}
		_ = w.WriteMsg(r) // a client that is gone
	})}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = server.Shutdown()
	}()
	if err := server.ListenAndServe(); err != nil {
		t.Fatal(err)
	}
}
