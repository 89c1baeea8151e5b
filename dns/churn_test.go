package dns

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"waggle/model"
)

// churn is a cluster whose tasks change all the time. Version v of a task is at
// address 10.v, but each third version does not run.
type churn struct {
	snap *model.Snapshot
	zone atomic.Pointer[Zone]
	// begun is the version of each task that may be served, done the one that
	// nothing older than is served any more.
	begun, done [churnTasks]atomic.Uint32
}

const churnTasks = 50

func churnName(i int) string { return fmt.Sprintf("churn%d.marathon.mesos.", i) }

func (c *churn) change(i int) {
	v := c.begun[i].Add(1)
	key := model.AppKey{FrameworkID: "F0", Name: fmt.Sprint("churn", i)}
	apps := c.snap.Apps.Edit()
	apps.Delete(key)
	if v%3 != 0 {
		t := benchTask(key.Name, 0, 0)
		t.AgentAddr = netip.AddrFrom4([4]byte{10, byte(v >> 16), byte(v >> 8), byte(v)})
		apps.Set(key, &model.App{Key: key, Framework: "marathon", Tasks: []*model.Task{t}})
	}
	c.snap = &model.Snapshot{Apps: apps.Groups()}
	c.zone.Store(Build(c.zone.Load(), c.snap, nil, DefaultConfig()))
	c.done[i].Store(v)
}

// check asks for one task, or for one that never changes, and fails t if the
// reply is lost or was not true at any time since it was asked.
func (c *churn) check(t *testing.T, rng *rand.Rand, conn *dns.Conn) {
	i := rng.IntN(churnTasks)
	name, from := churnName(i), c.done[i].Load()
	steady := rng.IntN(2) == 0
	if steady {
		name = "service-000000-group.marathon.mesos."
	}
	q := question(name, dns.TypeA)
	q.Id = uint16(rng.Uint32())
	if err := conn.WriteMsg(q); err != nil {
		t.Error(err)
		return
	}
	r, err := conn.ReadMsg()
	if err != nil || r.Id != q.Id {
		t.Errorf("%s: reply lost: %v, %v", name, r, err)
		return
	}
	to := c.begun[i].Load()
	switch {
	case steady && len(r.Answer) == 3:
	case !steady && r.Rcode == dns.RcodeNameError && to/3 > (max(from, 1)-1)/3:
	case !steady && r.Rcode == dns.RcodeNameError && from == 0:
	case !steady && len(r.Answer) == 1:
		a := r.Answer[0].(*dns.A).A.To4()
		if v := binary.BigEndian.Uint32(a) & 0xffffff; a[0] != 10 || v < from || v > to || v%3 == 0 {
			t.Errorf("%s: version %d, but it went from %d to %d", name, v, from, to)
		}
	default:
		t.Errorf("%s, version %d to %d: %v", name, from, to, r)
	}
}

func TestNoReplyIsLostOrWrongWhileTasksChange(t *testing.T) {
	for _, loop := range []Loop{LoopRaw, LoopPlain} {
		t.Run(string(loop), func(t *testing.T) {
			c := &churn{}
			c.snap, _ = cluster(3000)
			c.zone.Store(Build(nil, c.snap, nil, DefaultConfig()))
			cfg := DefaultServerConfig()
			cfg.Loop = loop
			to := serve(t, cfg, c.zone.Load, nil).Addrs()[0]

			const changes = 1500
			over := make(chan struct{})
			var clients sync.WaitGroup
			for n := range uint64(4) {
				conn := &dns.Conn{Conn: dial(t, protoUDP, to)}
				if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
					t.Fatal(err)
				}
				clients.Go(func() {
					rng := rand.New(rand.NewPCG(n, 1))
					for {
						select {
						case <-over:
							return
						default:
							c.check(t, rng, conn)
						}
					}
				})
			}
			tick := time.NewTicker(time.Millisecond) // a thousand changes a second
			defer tick.Stop()
			for n := range changes {
				<-tick.C
				c.change(n % churnTasks)
			}
			close(over)
			clients.Wait()
		})
	}
}
