//go:build vmtest

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"waggle/api"
	"waggle/internal/hostnet"
	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// TestKernelsThatLackSomethingBalanceAsWellAsTheyCan takes one thing after the
// other away from the machine's kernel, or from what a thread sees of it. The
// last ones cannot be undone.
func TestKernelsThatLackSomethingBalanceAsWellAsTheyCan(t *testing.T) {
	for _, args := range []string{"addr add 10.0.0.1/24 dev dummy0", "link set dummy0 up", "route add default via 10.0.0.2"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	for _, c := range []struct {
		name string
		lack func() error
		pins string
		kind string
		says []string // in what is said of the choice, or in the reasons of `waggle status`
	}{
		{"nothing", func() error { return nil }, "", "ebpf", nil},
		{"BTF", func() error { return hide("/sys/kernel/btf") }, "", "ebpf", nil},
		{"a mounted bpf file system", func() error { return unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) }, "", "ebpf", nil},
		{"any bpf file system", func() error { return nil }, "/run/waggle/pins", "ipvs", []string{"/run/waggle/pins is not on a bpf file system"}},
		{"a mounted cgroup2", func() error { return unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH) }, "", "ebpf", nil},
		{"the root of cgroup2", cgroupNamespace, "", "ipvs", []string{"cannot be seen from this cgroup namespace"}},
		{"a ban of unprivileged BPF", func() error { return set("/proc/sys/kernel/unprivileged_bpf_disabled", "0") }, "", "ebpf", []string{"kernel.unprivileged_bpf_disabled"}},
		{"every right", nobody, "", "none", []string{"eBPF", "IPVS", "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN", "CAP_NET_ADMIN, CAP_SYS_ADMIN"}},
		{"freedom to change the kernel (lockdown=integrity)", func() error { return lockdown("integrity") }, "", "ebpf", nil},
		{"freedom to read the kernel (lockdown=confidentiality)", func() error { return lockdown("confidentiality") }, "", "ebpf", nil},
		{"IPVS, and the root of cgroup2", func() error { return errors.Join(unloadIPVS(), cgroupNamespace()) }, "", "none", []string{"cgroup namespace", "the kernel has no IPVS"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := defaultFileConfig()
			cfg.LB.SelfTest = false
			if c.pins != "" {
				cfg.LB.PinDir = c.pins
			}
			err := apart(func() error {
				if err := c.lack(); err != nil {
					return fmt.Errorf("take it away: %w", err)
				}
				return tryBalancer(t, cfg, c.kind, c.says)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// tryBalancer opens what is the best here, and connects through it if it is to
// balance.
func tryBalancer(t *testing.T, cfg fileConfig, kind string, says []string) error {
	b, err := openBalancer(cfg, zaptest.NewLogger(t), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	d := &daemon{cfg: cfg, balancer: b}
	var st api.Status
	d.balancerStatus(&st)
	said := b.chosen + "\n" + fmt.Sprint(b.noLB) + "\n" + strings.Join(st.Reasons, "\n")
	t.Logf("%s: %s", b.kind, said)
	if b.kind != kind {
		err = fmt.Errorf("%s balances, not %s: %s", b.kind, kind, said)
	}
	for _, want := range says {
		if !strings.Contains(said, want) {
			err = errors.Join(err, fmt.Errorf("it does not say %q: %s", want, said))
		}
	}
	if b.plane == nil {
		return err
	}
	err = errors.Join(err, connectThrough(b.plane), b.plane.Close())
	_, unloaded := unload(cfg)
	return errors.Join(err, unloaded)
}

// connectThrough makes a VIP and connects to it, on the calling thread.
func connectThrough(plane lb.Dataplane) error {
	l, err := net.Listen("tcp", "10.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	f := vip.Frontend{Addr: netip.MustParseAddrPort("11.0.0.1:80"), Proto: model.TCP}
	services := model.Groups[vip.Frontend, *lb.Service]{}.Edit()
	services.Set(f, &lb.Service{Frontend: f, Backends: []lb.Backend{{Addr: netip.MustParseAddrPort(l.Addr().String()), Weight: 1}}})
	if err := plane.Apply(context.Background(), &lb.Plan{Services: services.Groups()}); err != nil {
		return err
	}
	c, err := net.Dial("tcp", f.Addr.String())
	if err != nil {
		return err
	}
	return c.Close()
}

// apart runs f on a thread of its own, with mounts of its own.
func apart(f func() error) error {
	return hostnet.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		return f()
	})
}

func set(path, value string) error { return os.WriteFile(path, []byte(value), 0) }

func hide(path string) error { return unix.Mount("tmpfs", path, "tmpfs", 0, "") }

// cgroupNamespace makes what is seen of cgroup v2 another's, as in a container.
func cgroupNamespace() error {
	const below = "/sys/fs/cgroup/daemon"
	err := os.Mkdir(below, 0o755)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := set(below+"/cgroup.procs", "0"); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return err
	}
	return unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH)
}

// nobody makes the calling thread nobody's.
func nobody() error {
	const id = 65534
	// Not unix.Setresuid, which changes every thread.
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
		return e
	}
	return nil
}

// lockdown locks the kernel down, for good.
func lockdown(level string) error {
	if err := unix.Mount("securityfs", "/sys/kernel/security", "securityfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return set("/sys/kernel/security/lockdown", level)
}

func unloadIPVS() error {
	for _, name := range []string{"ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_sh", "ip_vs_mh", "ip_vs"} {
		if err := unix.DeleteModule(name, unix.O_NONBLOCK); err != nil {
			return fmt.Errorf("unload %s: %w", name, err)
		}
	}
	return nil
}
