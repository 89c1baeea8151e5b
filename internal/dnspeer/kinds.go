package dnspeer

import (
	"bufio"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// NSD is NLnet Labs' authoritative server.
func NSD() Kind {
	return Kind{Name: "NSD", Program: "nsd", configure: func(dir string, at netip.AddrPort, zone Zone, o Options) ([]string, error) {
		file, err := zoneFile(dir, zone)
		if err != nil {
			return nil, err
		}
		conf := filepath.Join(dir, "nsd.conf")
		return []string{"-d", "-c", conf}, write(conf, func(w *bufio.Writer) {
			fmt.Fprintf(w, `server:
  ip-address: %s@%d
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: %q
  database: ""
  pidfile: ""
  xfrdfile: "xfrd.state"
  zonelistfile: "zone.list"
  xfrdir: %[3]q
  rrl-ratelimit: 0
  tcp-count: 500
  minimal-responses: %[4]s
remote-control:
  control-enable: no
zone:
  name: %[5]q
  zonefile: %[6]q
`, at.Addr(), at.Port(), dir, yesNo(o.Lean), zone.Apex, file)
			if o.Friend.IsValid() {
				fmt.Fprintf(w, "  provide-xfr: %s NOKEY\n", o.Friend)
			}
		})
	}}
}

// Knot is CZ.NIC's authoritative server.
func Knot() Kind {
	return Kind{Name: "Knot", Program: "knotd", configure: func(dir string, at netip.AddrPort, zone Zone, o Options) ([]string, error) {
		file, err := zoneFile(dir, zone)
		if err != nil {
			return nil, err
		}
		conf := filepath.Join(dir, "knot.conf")
		return []string{"-c", conf}, write(conf, func(w *bufio.Writer) {
			fmt.Fprintf(w, `server:
  rundir: %q
  listen: %s@%d
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: warning
database:
  storage: %[1]q
`, dir, at.Addr(), at.Port())
			acl := ""
			if o.Friend.IsValid() {
				acl = "    acl: friend\n"
				fmt.Fprintf(w, "acl:\n  - id: friend\n    address: %s\n    action: transfer\n", o.Friend)
			}
			fmt.Fprintf(w, "zone:\n  - domain: %s\n    storage: %q\n    file: %q\n    zonefile-sync: -1\n%s", zone.Apex, dir, file, acl)
		})
	}}
}

// CoreDNS is the CNCF's server, with its file plugin or as a forwarder. program is where its
// binary is, since Debian has none.
func CoreDNS(program string) Kind {
	return Kind{Name: "CoreDNS", Program: program, configure: func(dir string, at netip.AddrPort, zone Zone, o Options) ([]string, error) {
		conf := filepath.Join(dir, "Corefile")
		if o.Upstream.IsValid() {
			return []string{"-conf", conf}, write(conf, func(w *bufio.Writer) {
				fmt.Fprintf(w, ".:%d {\n  bind %s\n  cache\n  forward . %s\n}\n", at.Port(), at.Addr(), o.Upstream)
			})
		}
		file, err := zoneFile(dir, zone)
		if err != nil {
			return nil, err
		}
		return []string{"-conf", conf}, write(conf, func(w *bufio.Writer) {
			fmt.Fprintf(w, "%s:%d {\n  bind %s\n  file %s {\n    reload 2s\n  }\n", zone.Apex, at.Port(), at.Addr(), file)
			if o.Friend.IsValid() {
				fmt.Fprintf(w, "  transfer {\n    to %s\n  }\n", o.Friend)
			}
			if o.Cache {
				fmt.Fprintf(w, "  cache\n")
			}
			fmt.Fprintln(w, "}")
		})
	}}
}

// Unbound is NLnet Labs' resolver, with the zone as local data or as a
// forwarder.
func Unbound() Kind {
	return Kind{Name: "Unbound", Program: "unbound", configure: func(dir string, at netip.AddrPort, zone Zone, o Options) ([]string, error) {
		conf := filepath.Join(dir, "unbound.conf")
		return []string{"-d", "-c", conf}, write(conf, func(w *bufio.Writer) {
			fmt.Fprintf(w, `server:
  interface: %s@%d
  num-threads: 1
  use-syslog: no
  logfile: ""
  verbosity: 0
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  do-daemonize: no
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
  module-config: "iterator"
`, at.Addr(), at.Port(), dir)
			if t := o.TLS; t.Addr.IsValid() {
				fmt.Fprintf(w, "  interface: %s@%d\n  tls-port: %[2]d\n  tls-service-pem: %q\n  tls-service-key: %q\n", t.Addr.Addr(), t.Addr.Port(), t.Cert, t.Key)
			}
			if o.Upstream.IsValid() {
				fmt.Fprintf(w, `  do-not-query-localhost: no
  msg-cache-size: 32m
  rrset-cache-size: 32m
  outgoing-range: 4096
  num-queries-per-thread: 2048
forward-zone:
  name: "."
  forward-addr: %s@%d
`, o.Upstream.Addr(), o.Upstream.Port())
			} else {
				fmt.Fprintf(w, "  local-zone: %q static\n", zone.Apex)
				for _, r := range zone.Records {
					fmt.Fprintf(w, "  local-data: '%s %d IN %s %s'\n", r.Name, r.TTL, r.Type, r.Data)
				}
			}
			fmt.Fprintln(w, "remote-control:\n  control-enable: no")
		})
	}}
}

// Dnsmasq is Simon Kelley's forwarder, with the zone's A, AAAA and SRV records
// or as what it is.
func Dnsmasq() Kind {
	return Kind{Name: "dnsmasq", Program: "dnsmasq", configure: func(dir string, at netip.AddrPort, zone Zone, o Options) ([]string, error) {
		conf, hosts := filepath.Join(dir, "dnsmasq.conf"), filepath.Join(dir, "hosts")
		err := write(hosts, func(w *bufio.Writer) {
			for _, r := range zone.Records {
				if r.Type == "A" || r.Type == "AAAA" {
					fmt.Fprintln(w, r.Data, strings.TrimSuffix(r.Name, "."))
				}
			}
		})
		if err != nil {
			return nil, err
		}
		return []string{"-k", "-C", conf}, write(conf, func(w *bufio.Writer) {
			fmt.Fprintf(w, `port=%d
listen-address=%s
bind-interfaces
no-resolv
no-hosts
user=
group=
pid-file=
log-facility=-
`, at.Port(), at.Addr())
			if o.Upstream.IsValid() {
				fmt.Fprintf(w, "cache-size=10000\ndns-forward-max=1000\nserver=%s#%d\n", o.Upstream.Addr(), o.Upstream.Port())
				return
			}
			fmt.Fprintf(w, "addn-hosts=%s\nlocal=/%s/\nauth-ttl=60\nlocal-ttl=60\n", hosts, strings.TrimSuffix(zone.Apex, "."))
			for _, r := range zone.Records {
				switch f := strings.Fields(r.Data); r.Type {
				case "SRV":
					fmt.Fprintf(w, "srv-host=%s,%s,%s,%s,%s\n", strings.TrimSuffix(r.Name, "."), strings.TrimSuffix(f[3], "."), f[2], f[0], f[1])
				case "SOA": // something that ready can ask for
					fmt.Fprintf(w, "dns-rr=%s,6,%s\n", strings.TrimSuffix(r.Name, "."), soaHex(f))
				}
			}
		})
	}}
}

// soaHex writes the fields of a SOA record in wire form.
func soaHex(f []string) string {
	var out strings.Builder
	for _, name := range f[:2] {
		for label := range strings.SplitSeq(name, ".") {
			fmt.Fprintf(&out, "%02x%x", len(label), label)
		}
	}
	for _, n := range f[2:] {
		var v uint32
		_, _ = fmt.Sscan(n, &v) // a number of ours
		fmt.Fprintf(&out, "%08x", v)
	}
	return out.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
