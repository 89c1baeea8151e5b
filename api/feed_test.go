package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/dns"
	"waggle/model"
	"waggle/vip"
)

// cluster is a Snapshot that tests change, and what the pipeline makes of it.
type cluster struct {
	mu   sync.Mutex // guards the following
	apps *model.Editor[model.AppKey, *model.App]
	view View
	next chan struct{}
}

func newCluster() *cluster {
	c := &cluster{apps: model.Groups[model.AppKey, *model.App]{}.Edit(), next: make(chan struct{})}
	c.turn()
	return c
}

// app has n tasks of a name, from address 10.0.0.from on; none removes it.
func (c *cluster) app(name string, from, n int) {
	key := model.AppKey{FrameworkID: "F", Name: name}
	if n == 0 {
		c.apps.Delete(key)
		return
	}
	a := &model.App{Key: key, Framework: "marathon"}
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, byte(from >> 8), byte(from), byte(1 + i)})
		t := &model.Task{
			Key: model.TaskKey{FrameworkID: "F", ID: fmt.Sprintf("%s.%d", name, i)}, Name: name, Framework: "marathon",
			State: model.Running, AgentAddr: addr, Addrs: []model.Address{{Addr: addr}},
			Discovery: &model.Discovery{Name: name, Ports: []model.DiscoveryPort{{Number: 80, Name: "http", Protocol: "tcp", Labels: []model.Label{{Key: "VIP_0", Value: "/" + name + ":80"}}}}},
		}
		t.Ports, _ = model.JoinPorts(t)
		a.Tasks = append(a.Tasks, t)
	}
	c.apps.Set(key, a)
}

// turn makes the next View of the apps as they are now.
func (c *cluster) turn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &model.Snapshot{Apps: c.apps.Groups()}
	v := View{
		Snapshot: s, Table: vip.Build(c.view.Table, s, vip.DefaultConfig()),
		Status: func() Status {
			return Status{Ready: true, Version: "v1", Reasons: []string{}, DNS: []string{}, HTTP: []string{}, Balancer: Balancer{Kind: "ebpf", Chosen: "the best that works here"}, Source: Source{Connected: true, Leader: "10.0.0.1:5050", Published: time.Now()}}
		}, Problems: func() []model.Problem { return nil },
	}
	v.Zone = dns.Build(c.view.Zone, s, v.Table, dns.DefaultConfig())
	was := c.next
	c.next = make(chan struct{})
	v.Next = c.next
	c.view = v
	close(was)
}

func (c *cluster) now() View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view
}

// lists is what a client holds that follows the stream.
type lists struct {
	VIPs    map[string]VIP
	Records map[string][]Record
}

func listsOf(v View) lists {
	l := lists{map[string]VIP{}, map[string][]Record{}}
	for _, one := range VIPs(v.Table, v.Plan, "l4lb.thisdcos.directory") {
		l.VIPs[fmt.Sprintf("%v %d %s", one.Address, one.Port, one.Protocol)] = one
	}
	for _, r := range Records(v.Zone) {
		l.Records[r.Name] = append(l.Records[r.Name], r)
	}
	return l
}

func (l lists) take(c Change) {
	switch {
	case c.VIP != nil:
		l.VIPs[fmt.Sprintf("%v %d %s", c.VIP.Address, c.VIP.Port, c.VIP.Protocol)] = *c.VIP
	case c.Gone != nil:
		delete(l.VIPs, fmt.Sprintf("%v %d %s", c.Gone.Address, c.Gone.Port, c.Gone.Protocol))
	case len(c.Records.Records) == 0:
		delete(l.Records, c.Records.Name)
	default:
		l.Records[c.Records.Name] = c.Records.Records
	}
}

var sameLists = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty(),
	cmpopts.SortSlices(func(a, b Record) bool { return a.Type+a.Data < b.Type+b.Data }),
}

// Lists that follow the changes equal lists taken anew, whatever happens.
func TestChangesLeadFromOnePictureToTheNext(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 1))
	c, f := newCluster(), newFeed("l4lb.thisdcos.directory")
	f.join(1)
	f.take(c.now)
	held, at := listsOf(c.now()), f.now()
	for step := range 200 {
		for range rng.IntN(6) {
			c.app(fmt.Sprintf("app%d", rng.IntN(12)), rng.IntN(4), rng.IntN(4))
		}
		c.turn()
		f.take(c.now)
		if rng.IntN(3) == 0 {
			continue // the client is slow: it takes two steps as one
		}
		for {
			list, next, _, ok := f.after(at, 1+rng.IntN(5))
			if !ok {
				t.Fatalf("step %d: forgotten", step)
			}
			if at = next; len(list) == 0 {
				break
			}
			for _, e := range list {
				var ch Change
				if err := json.Unmarshal(e.data, &ch); err != nil {
					t.Fatal(err)
				}
				held.take(ch)
			}
		}
		if d := cmp.Diff(listsOf(c.now()), held, sameLists); d != "" {
			t.Fatalf("step %d: %s", step, d)
		}
	}
}

func TestWhatIsForgottenIsSaid(t *testing.T) {
	c, f := newCluster(), newFeed("z")
	f.take(c.now)
	at := f.now()
	c.app("a", 0, 1)
	c.turn()
	f.take(c.now) // nobody listens, so nothing is worked out
	if _, _, _, ok := f.after(at, 10); ok {
		t.Error("changes that were not worked out are promised")
	}
	f.join(1)
	at = f.now()
	for i := range keptChanges {
		c.app("a", i%200, 1)
		c.turn()
		f.take(c.now)
		if list, _, _, ok := f.after(at, 1); !ok || len(list) != 1 {
			if len(f.entries) > keptChanges || f.bytes > keptBytes {
				t.Errorf("%d changes, %d octets are kept", len(f.entries), f.bytes)
			}
			return
		}
	}
	t.Error("nothing is ever forgotten")
}

// event is one server-sent event.
type event struct{ id, name, data string }

// follow reads events of a stream until stop returns true, for up to a minute.
func follow(t *testing.T, base, query, last string, stop func(event) bool) (code int, seen []event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v2/changes"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	var e event
	for in.Scan() {
		key, value, _ := strings.Cut(in.Text(), ": ")
		switch {
		case in.Text() == "" && e != (event{}):
			seen = append(seen, e)
			if stop(e) {
				return resp.StatusCode, seen
			}
			e = event{}
		case key == "id":
			e.id = value
		case key == "event":
			e.name = value
		case key == "data":
			e.data = value
		}
	}
	if resp.StatusCode == http.StatusOK {
		t.Fatalf("the stream ended: %v after %v", in.Err(), seen)
	}
	return resp.StatusCode, seen
}

// serve runs a Server on loopback until the test ends.
func serve(t *testing.T, c *cluster, patience time.Duration) (*Server, string) {
	t.Helper()
	s := newTestServer(t, Config{Listen: "127.0.0.1:0", VIPZone: "l4lb.thisdcos.directory"}, c.now)
	s.patience = patience
	running(t, s)
	return s, "http://" + s.Addrs()[0].String()
}

// running runs s until the test ends.
func running(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
}

func isVIP(name string) func(event) bool {
	return func(e event) bool {
		return e.name == "vips" && strings.Contains(e.data, `"`+name+`.marathon.l4lb`)
	}
}

func TestAStreamIsTakenUpWhereItBroke(t *testing.T) {
	c := newCluster()
	s, base := serve(t, c, time.Minute)
	var first event
	_, seen := follow(t, base, "", "", func(e event) bool {
		if e.name == "reset" {
			c.app("a0", 1, 1)
			c.turn()
		}
		first = e
		return isVIP("a0")(e)
	})
	if seen[0].name != "reset" || seen[0].id == "" || first.id == "" {
		t.Fatalf("a new client is told %v", seen)
	}
	c.app("b", 9, 2)
	c.turn()
	_, seen = follow(t, base, "?topics=vips", first.id, isVIP("b"))
	for _, e := range seen {
		if e.name != "vips" || e.id == "" {
			t.Errorf("resumed by topic, it hears %v", e)
		}
	}
	if last := seen[len(seen)-1]; !strings.Contains(last.data, `"address":"10.0.9.2"`) {
		t.Errorf("the change is %s", last.data)
	}
	for last, why := range map[string]string{"other-1": "restarted", "x": "no position", s.feed.epoch + "-999999": "forgotten"} {
		_, seen = follow(t, base, "", last, func(e event) bool { return e.name == "reset" })
		if !strings.Contains(seen[len(seen)-1].data, why) {
			t.Errorf("%s: %v", last, seen)
		}
	}
	if code, _ := follow(t, base, "?topics=gossip", "", nil); code != http.StatusBadRequest {
		t.Errorf("an unknown topic: %d", code)
	}
	if _, seen := follow(t, base, "?topics=traffic", "", func(e event) bool { return e.name == "traffic" }); !strings.Contains(seen[len(seen)-1].data, `"ready":true`) {
		t.Errorf("traffic: %v", seen)
	}
}

// A client that takes nothing is cut, the others do not notice.
func TestAClientThatTakesNothingIsCut(t *testing.T) {
	c := newCluster()
	s, base := serve(t, c, 100*time.Millisecond)
	resp, err := http.Get(base + "/v2/changes")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	deadline := time.After(time.Minute)
	for i := 0; ; i++ {
		for n := range 20 {
			c.app(fmt.Sprint("app", n), i%200, 40)
		}
		c.turn()
		s.feed.mu.Lock()
		clients := s.feed.clients
		s.feed.mu.Unlock()
		if clients == 0 {
			break
		}
		select {
		case <-deadline:
			t.Fatal("it is still served")
		default:
		}
	}
	_, seen := follow(t, base, "", "", func(e event) bool { return e.name == "reset" })
	if len(seen) != 1 {
		t.Errorf("%v", seen)
	}
}

func TestOnlySoManyMayFollow(t *testing.T) {
	s, base := serve(t, newCluster(), time.Minute)
	for range maxStreams {
		s.feed.join(maxStreams)
	}
	if code, _ := follow(t, base, "", "", nil); code != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", code)
	}
	for range maxStreams {
		s.feed.leave()
	}
	if code, _ := follow(t, base, "", "", func(event) bool { return true }); code != http.StatusOK {
		t.Errorf("after they have gone: %d", code)
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	s := newTestServer(t, Config{Listen: "127.0.0.1:0"}, newCluster().now)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	resp, err := http.Get("http://" + s.Addrs()[0].String() + "/v2/changes")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the stream is torn: %v", err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// takesAll is a recorder for streams, which set a deadline.
type takesAll struct{ *httptest.ResponseRecorder }

func (takesAll) SetWriteDeadline(time.Time) error { return nil }

// contextThatEnds is over after a moment: the first events are there by then.
func contextThatEnds(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), 50*time.Millisecond)
}
