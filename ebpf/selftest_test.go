package ebpf

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// TestA03_7_TheSelfTestFindsOutThatNothingIsBalanced is row 7 as well: what
// looks attached is tried by a process of another cgroup.
func TestA03_7_TheSelfTestFindsOutThatNothingIsBalanced(t *testing.T) {
	b := newBed(t)
	b.cfg.SelfTest = []string{"/proc/self/exe", probeArg}
	reg := prometheus.NewPedanticRegistry()
	d := b.openWith(t, reg)
	if err := d.selfTest(t.Context()); !errors.Is(err, errNotYet) {
		t.Fatalf("before the first Plan: %v", err)
	}
	web := service(vip4, addr("127.0.0.1:81"))
	apply(t, d, web)
	if err := d.selfTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Every Plan keeps the probe, and Repair brings it back.
	apply(t, d, web, service("11.0.0.2:80"))
	if err := d.objs.Vip4.Delete(d.v4.key(d.probe.service.Frontend)); err != nil {
		t.Fatal(err)
	}
	if err := d.selfTest(t.Context()); err == nil {
		t.Error("it does not notice that its VIP is gone")
	}
	if err := d.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.selfTest(t.Context()); err != nil {
		t.Errorf("after Repair: %v", err)
	}
	if err := detach(d.pins.linkPath(bpfProgConnect4)); err != nil {
		t.Fatal(err)
	}
	err := d.selfTest(t.Context())
	if err == nil || !strings.Contains(err.Error(), probeVIP) {
		t.Errorf("with the program detached: %v", err)
	}
	d.noteSelfTest(err)
	if got := d.Status().SelfTest; got == nil || got.Error != err.Error() {
		t.Errorf("status says %+v", got)
	}
	if v := values(t, reg)["selftest_ok{}"]; v != 0 {
		t.Errorf("the metric is %v", v)
	}
	if _, err := os.Stat(filepath.Join(b.cfg.Cgroup, probeCgroup)); err == nil {
		t.Error("the self-test leaves its cgroup")
	}
}

func TestRunTestsUntilItIsToldToEnd(t *testing.T) {
	b := newBed(t)
	b.cfg.SelfTest = []string{"/proc/self/exe", probeArg}
	d := b.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return d.Run(ctx) })
	apply(t, d)
	eventually(t, func() error {
		if r := d.Status().SelfTest; r == nil || r.Error != "" {
			return errors.New("no self-test yet")
		}
		return nil
	})
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
}

func TestTheOwnCgroupIsThatOfVersion2(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/waggle.service\n":                              "/system.slice/waggle.service",
		"3:cpu,cpuacct:/x\n1:name=systemd:/init.scope\n0::/init.scope\n": "/init.scope",
		"3:cpu:/x\n": "", "": "", "0::/\n": "/",
	} {
		if got := ownCgroup(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
