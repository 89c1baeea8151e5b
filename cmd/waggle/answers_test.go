package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/internal/testnet"
)

// TestTheKernelAnswersWhatIsAskedForOften asks a daemon from its own node, for
// names of ours and of others, while what they say changes.
func TestTheKernelAnswersWhatIsAskedForOften(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.state, "services.yaml")
	serve := func(addr string) {
		t.Helper()
		text := fmt.Sprintf("services:\n- {name: web, addresses: [%s], ports: [{port: 80, vip: '/web:80'}]}\n", addr)
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o644), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	serve("192.0.2.1")
	p := n.start(t, n.verb("run", "--file.paths", file, "--dns.forward.on=true", "--dns.forward.upstreams", n.everyName(t, "192.0.2.99"))...)
	n.up(t, "web.static", 1)
	eventually(t, "the daemon knows what the kernel can", func() bool {
		return strings.Contains(p.out.String(), "answers in the kernel") || strings.Contains(p.out.String(), "the kernel gives answers")
	})
	if strings.Contains(p.out.String(), "no answers in the kernel") {
		testnet.Skip(t, "this kernel takes no program on lo (Linux 6.6 does)")
	}
	const ours = "web.static.mesos."
	for _, name := range []string{ours, "web.static.l4lb.thisdcos.directory.", "nobody.mesos.", "www.example.com."} {
		want := n.query(t, n.client, name, dns.TypeA)
		eventually(t, "the kernel answers "+name, func() bool {
			before := n.inKernel(t)
			r := n.query(t, n.Namespace, name, dns.TypeA)
			if r.Rcode != want.Rcode || len(r.Answer) != len(want.Answer) || r.RecursionAvailable != want.RecursionAvailable {
				t.Errorf("%s: %v", name, r)
			}
			return n.inKernel(t) > before
		})
	}

	for i := 2; i < 12; i++ {
		addr := fmt.Sprintf("192.0.2.%d", i)
		serve(addr)
		changed := 0
		eventually(t, "web is at "+addr, func() bool {
			r := n.query(t, n.Namespace, ours, dns.TypeA)
			is := len(r.Answer) == 1 && r.Answer[0].(*dns.A).A.String() == addr
			switch {
			case is:
				changed++
			case changed > 0:
				t.Fatalf("%s, which was before: %v", ours, r)
			}
			return changed > 10
		})
	}

	// A daemon that stands still knows nothing of what changes.
	answered := func() bool {
		_, err := n.asked(n.Namespace, new(dns.Msg).SetQuestion(ours, dns.TypeA), 200*time.Millisecond)
		return err == nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the kernel is silent too", func() bool { return !answered() })
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it answers again", answered)

	// What is attached goes with the daemon, however that ends.
	p.stop(t, syscall.SIGKILL)
	eventually(t, "nobody answers", func() bool { return !answered() })
}

var kernelAnswers = regexp.MustCompile(`(?m)^waggle_dns_kernel_answers_total (\S+)$`)

// inKernel returns how many queries the kernel has answered.
func (n *node) inKernel(t *testing.T) float64 {
	t.Helper()
	m := kernelAnswers.FindStringSubmatch(n.metrics(t))
	if m == nil {
		t.Fatal("there is no such count")
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
