//go:build vmtest

package ipvs

import (
	"context"
	"testing"

	"github.com/moby/ipvs"
	"go.uber.org/zap/zaptest"

	"waggle/internal/testnet"
	"waggle/lb"
	"waggle/lb/feature"
)

// followed is a Dataplane that is run until it is closed, as the program does.
type followed struct {
	*Dataplane
	stop func()
}

// Close ends Run too.
func (f followed) Close() error {
	f.stop()
	return f.Dataplane.Close()
}

func TestFeatures(t *testing.T) {
	feature.Prove(t, feature.IPVS, func(tb testing.TB, s feature.Setting) feature.Bed {
		cfg := Config{Node4: hostAddr.Addr(), Node6: host6.Addr(), Containers: s.Containers}
		cgroup := testnet.Cgroup(tb)
		testnet.Enter(tb, cgroup)
		return feature.Bed{
			Cgroup: cgroup,
			Open: func(tb testing.TB) lb.Dataplane {
				var d *Dataplane
				s.Node.Must(tb, func() (err error) {
					d, err = Open(cfg, zaptest.NewLogger(tb), nil)
					return err
				})
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() { done <- d.Run(ctx) }()
				return followed{d, func() { cancel(); <-done }}
			},
			Damage: func(tb testing.TB) {
				s.Node.Must(tb, func() error {
					h, err := ipvs.New("")
					if err != nil {
						return err
					}
					defer h.Close()
					return h.Flush()
				})
			},
		}
	})
}
