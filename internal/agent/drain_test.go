package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/lb/lbtest"
	"waggle/model"
	"waggle/vip"
)

// telling is a Dataplane that says which drains it was told have ended.
type telling struct {
	*lbtest.Dataplane
	ended chan []lb.Drain
}

func (p telling) Disconnect(ended []lb.Drain) (int, error) {
	p.ended <- ended
	return 0, nil
}

func draining(t *testing.T, time string) Config {
	t.Helper()
	cfg := DefaultConfig()
	if err := cfg.VIP.Options.Set("drain", time); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestADrainOutlivesTheDaemon kills the daemon before, during and after a drain
// ends: the next one ends what is left of it, once.
func TestADrainOutlivesTheDaemon(t *testing.T) {
	for name, tt := range map[string]struct {
		killed, started time.Duration // after the drain began
		again           bool          // the backend is back
		want            int           // drains that the second daemon ends
	}{
		"in time":                     {10 * time.Second, 20 * time.Second, false, 1},
		"after the drain was over":    {10 * time.Second, time.Hour, false, 1},
		"the drain had been ended":    {2 * time.Minute, time.Hour, false, 0},
		"the backend has come back":   {10 * time.Second, 20 * time.Second, true, 0},
		"killed as soon as it starts": {0, 0, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state", "drains")
			synctest.Test(t, func(t *testing.T) {
				cfg := draining(t, "1m")
				cfg.DrainFile = file
				run := func(plane lb.Dataplane) (*harness, context.CancelFunc) {
					h := &harness{source: make(script)}
					h.agent = New(cfg, h.source, plane, zaptest.NewLogger(t), nil)
					ctx, cancel := context.WithCancel(t.Context())
					go h.agent.Run(ctx)
					return h, cancel
				}
				first := telling{lbtest.New(), make(chan []lb.Drain, 9)}
				h, cancel := run(first)
				h.publish(world(map[string]int{"web": 2}))
				h.publish(world(map[string]int{"web": 1}))
				began := time.Now()
				wait(tt.killed)
				synctest.Wait()
				kept, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				cancel()
				synctest.Wait()
				// A daemon that is killed writes nothing more.
				if err := os.WriteFile(file, kept, 0o600); err != nil {
					t.Fatal(err)
				}
				wait(time.Until(began.Add(tt.started)))

				second := telling{lbtest.New(), make(chan []lb.Drain, 9)}
				h, cancel = run(second)
				n := 1
				if tt.again {
					n = 2
				}
				h.publish(world(map[string]int{"web": n}))
				if tt.started < time.Minute && len(second.ended) > 0 {
					t.Error("the drain was cut short")
				}
				wait(2 * time.Minute)
				synctest.Wait()
				if got := len(second.ended); got != tt.want {
					t.Errorf("the second daemon ended %d drains, want %d", got, tt.want)
				}
				if b, err := os.ReadFile(file); err != nil || len(decodeDrains(t, file)) > 0 {
					t.Errorf("the file still has %s, %v", b, err)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// wait lets time pass in a bubble.
func wait(d time.Duration) { <-time.After(d) }

func decodeDrains(t *testing.T, path string) []lb.Drain {
	t.Helper()
	list, err := (&drainFile{path: path}).load()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAFileOfDrainsIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drains")
	at := netip.MustParseAddrPort
	want := []lb.Drain{
		{Frontend: vip.Frontend{Addr: at("11.0.0.1:80"), Proto: model.TCP}, Backend: at("10.0.0.1:8080"), Until: time.Unix(1e9, 5).UTC()},
		{Frontend: vip.Frontend{Addr: at("[fd01::1]:53"), Proto: model.UDP}, Backend: at("[fd00::1]:53"), Until: time.Unix(2e9, 0).UTC()},
	}
	f := &drainFile{path: path}
	if err := f.save(want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, decodeDrains(t, path), cmpopts.EquateComparable(vip.Frontend{}, netip.AddrPort{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for name, text := range map[string]string{
		"of another boot": `{"boot": "x", "drains": [{"vip": "11.0.0.1:80", "protocol": "tcp"}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := decodeDrains(t, path); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, text := range []string{"", "{", `{"boot": "` + bootID() + `", "drains": [{"protocol": "x"}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := f.load(); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

// TestSocketsAreToldSoonAfterTheDrain measures from the end of the drain to the
// moment that a reader in a container wakes up, with the real kernel.
func TestSocketsAreToldSoonAfterTheDrain(t *testing.T) {
	const soon = 100 * time.Millisecond
	h, ns, _ := startReal(t, draining(t, "300ms"))
	backend := ns.Echo(t, netip.MustParseAddrPort("127.0.0.1:0"))
	best := time.Hour
	for range 30 { // a machine that is busy with other things is late at times
		if best = min(best, toldAfter(t, h, ns, backend)); best <= soon {
			return
		}
	}
	t.Errorf("sockets were told %v after the end of the drain at best, want %v", best, soon)
}

// toldAfter connects to a backend through its VIP, takes it away, and returns
// how long after the end of its drain the connections learn of it.
func toldAfter(t *testing.T, h *harness, ns *testnet.Namespace, backend netip.AddrPort) time.Duration {
	t.Helper()
	h.source <- single(backend)
	var conns []net.Conn
	f := h.applied(t)
	eventually(t, "the VIP is connected to", func() error {
		return ns.Do(func() error {
			for len(conns) < 20 {
				c, err := net.Dial("tcp", f.Addr.String())
				if err != nil {
					return err
				}
				conns = append(conns, c)
			}
			return nil
		})
	})
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	h.source <- world(map[string]int{})
	var until time.Time
	eventually(t, "the backend drains", func() error {
		for _, d := range h.agent.State().Plan.Draining() {
			until = d.Until
			return nil
		}
		return errors.New("not yet")
	})
	for _, c := range conns {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
			t.Fatalf("the drain ended with %v", err)
		}
	}
	return time.Since(until)
}

// single is world with one task, which listens at addr.
func single(addr netip.AddrPort) *model.Snapshot {
	s := world(map[string]int{"web": 1})
	for _, app := range s.Apps.All() {
		task := app.Tasks[0]
		task.AgentAddr, task.Addrs[0].Addr, task.Ports[0].Number = addr.Addr(), addr.Addr(), addr.Port()
	}
	return s
}
