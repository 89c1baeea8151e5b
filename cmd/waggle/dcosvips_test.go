package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"waggle/internal/outside"
	"waggle/watcher/mesos/mesostest"
)

// vipsOfDCOS runs the cases of VIPs that come and go with their backends.
func vipsOfDCOS(t *testing.T, todo map[string]nameCase) {
	agent := netip.MustParseAddr("1.2.3.4")
	task := func(framework, vip string, ip netip.Addr) mesostest.Task {
		return mesostest.Task{
			ID: framework + ".1", Name: "task", Framework: framework, Agent: "S0", State: "TASK_RUNNING", IP: ip,
			Ports: []mesostest.Port{{Number: 80, Name: "p", Protocol: "tcp", Labels: []string{"VIP_0", vip}}},
		}
	}
	v6 := netip.MustParseAddr("1::1")
	tasks := []mesostest.Task{task("bar", "/foo:80", netip.MustParseAddr("9.0.0.4")), task("qux", "/baz:80", netip.MustParseAddr("9.0.0.5")), task("ipv6", "/qux:80", v6)}
	var frameworks []map[string]any
	for _, f := range []string{"bar", "qux", "ipv6"} {
		frameworks = append(frameworks, mesostest.Framework(f, f))
	}
	n, m := daemonOfDCOS(t, mesostest.Subscribed(15, []map[string]any{mesostest.Agent("S0", agent)}, frameworks, tasks),
		"--vip.first4", "11.0.0.0", "--vip.last4", "11.0.0.254")
	const gone = "NXDOMAIN aa: ; l4lb.thisdcos.directory. 1"
	check := func(foo, baz, qux string) {
		t.Helper()
		of := "vip-dns/lookup_vips"
		n.sayBoth(t, nameAsk{of, "foo.bar.l4lb.thisdcos.directory", dns.TypeA, foo})
		n.sayBoth(t, nameAsk{of, "baz.qux.l4lb.thisdcos.directory", dns.TypeA, baz})
		n.sayBoth(t, nameAsk{of, "qux.ipv6.l4lb.thisdcos.directory", dns.TypeAAAA, qux})
	}
	end := func(tasks ...mesostest.Task) {
		for _, task := range tasks {
			task.State = "TASK_KILLED"
			m.Send(mesostest.TaskUpdated(task))
		}
		last := tasks[len(tasks)-1]
		name := strings.Trim(strings.TrimSuffix(last.Ports[0].Labels[1], ":80"), "/") + "." + last.Framework + ".l4lb.thisdcos.directory."
		eventually(t, name+" is gone", func() bool {
			r := n.ask(t, new(dns.Msg).SetQuestion(name, dns.TypeA), "udp")
			return r != nil && r.Rcode == dns.RcodeNameError
		})
	}
	const baz, qux = "NOERROR aa: A 11.0.0.39", "NOERROR aa: AAAA fd01:c::6d6d:9c64:fd19:f251"
	check("NOERROR aa: A 11.0.0.37", baz, qux)
	end(tasks[0])
	check(gone, baz, qux)
	end(tasks[1:]...)
	check(gone, gone, gone)

	dual := task("marathon", "/web:80", netip.MustParseAddr("9.0.0.4"))
	other := task("marathon", "/web:80", v6)
	other.ID = "other"
	n, _ = daemonOfDCOS(t, mesostest.Subscribed(15, []map[string]any{mesostest.Agent("S0", agent)},
		[]map[string]any{mesostest.Framework("marathon", "marathon")}, []mesostest.Task{dual, other}))
	n.sayBoth(t, nameAsk{"vip-dns/dual", "web.marathon.l4lb.thisdcos.directory", dns.TypeA, "NOERROR aa: A 11.225.36.193"})
	n.sayBoth(t, nameAsk{"vip-dns/dual", "web.marathon.l4lb.thisdcos.directory", dns.TypeAAAA, "NOERROR aa: AAAA fd01:c::cb8:74fe:906b:dee"})
	for _, of := range []string{"vip-dns/lookup_vips", "vip-dns/no-backends-no-name", "vip-dns/dual"} {
		delete(todo, of)
	}
}

// importedByDCOS runs the cases of names of mesos-dns below DC/OS' domain. DC/OS
// takes the records from mesos-dns; here they are given as the configured ones,
// but for those that only the cluster itself has.
func importedByDCOS(t *testing.T, todo map[string]nameCase) {
	var theirs axfr
	outside.JSON(t, &theirs, "fixtures", "dcos-net", "mesos-dns-axfr.json")
	args := []string{}
	for rec := range theirs.records() {
		f := strings.Fields(rec)
		first, _, _ := strings.Cut(strings.TrimPrefix(f[0], "_"), ".")
		if first == "leader" || first == "slave" || first == "ns1" || strings.HasPrefix(first, "master") {
			continue
		}
		if i := strings.LastIndexByte(f[2], ':'); f[1] == "SRV" {
			f[2] = fmt.Sprintf("0 1 %s %s", f[2][i+1:], f[2][:i])
		}
		args = append(args, "--dns.records", strings.Join(f, " "))
	}
	n, _ := daemonOfDCOS(t, mesostest.Subscribed(15, nil, nil, nil), args...)
	for name, c := range todo {
		if c.Group != "mesos-dns-import" {
			continue
		}
		delete(todo, name)
		var in struct{ Query, Type string }
		var want struct{ Answers []string }
		if err := json.Unmarshal(c.Input, &in); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(c.Expect, &want); err != nil {
			t.Fatal(err)
		}
		in.Query, in.Type, _ = strings.Cut(in.Query+" "+in.Type, " ")
		for _, over := range []string{"udp", "tcp"} {
			r := n.ask(t, new(dns.Msg).SetQuestion(dns.Fqdn(in.Query), dns.StringToType[strings.TrimSpace(in.Type)]), over)
			if r == nil {
				continue
			}
			if got := said(r); len(r.Answer) != 1 || !imports(got, want.Answers[0]) {
				t.Errorf("%s over %s: %s, want %v", name, over, got, want.Answers)
			}
		}
	}
}

// imports reports whether a reply has what a case wants: an address, or "port
// 5463", or "..., port 31775, target x.mesos.thisdcos.directory".
func imports(got, want string) bool {
	_, target, _ := strings.Cut(want, "target ")
	_, port, ok := strings.Cut(want, "port ")
	if !ok {
		return strings.HasSuffix(got, " "+want)
	}
	port, _, _ = strings.Cut(port, ",")
	return strings.Contains(got, ": SRV 0 1 "+port+" ") && strings.Contains(got, " "+target) && strings.HasSuffix(got, ".mesos.thisdcos.directory.")
}
