package ebpf

import (
	"errors"
	"testing"

	"go.uber.org/zap/zaptest"

	"waggle/internal/hostnet"
	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/lb/feature"
)

// whole is the balancer as the program has it: with an end for sockets.
type whole struct{ *Dataplane }

// Disconnect implements what the program adds.
func (whole) Disconnect(ended []lb.Drain) (int, error) {
	peers := map[hostnet.Peer]bool{}
	for _, d := range ended {
		peers[hostnet.Peer{Proto: d.Frontend.Proto, Addr: d.Backend}] = true
	}
	return hostnet.Disconnect(peers)
}

func TestFeatures(t *testing.T) {
	feature.Prove(t, feature.EBPFHere(t), func(tb testing.TB, s feature.Setting) feature.Bed {
		b := &bed{cfg: smallConfig(), ns: s.Node}
		b.cfg.PinDir, b.cfg.Cgroup, b.cfg.Watch = testnet.PinDir(tb), testnet.Cgroup(tb), true
		testnet.Enter(tb, b.cfg.Cgroup)
		var d *Dataplane
		return feature.Bed{
			Cgroup: b.cfg.Cgroup,
			Open: func(tb testing.TB) lb.Dataplane {
				var err error
				if d, err = Open(b.cfg, zaptest.NewLogger(tb), nil); errors.Is(err, ErrNotSupported) {
					testnet.Skip(tb, err.Error())
				} else if err != nil {
					tb.Fatal(err)
				}
				return whole{d}
			},
			Damage: func(tb testing.TB) {
				if err := d.objs.Vip4.Delete(newFormat4().key(tcp(addr(vip4)))); err != nil {
					tb.Fatal(err)
				}
			},
		}
	})
}
