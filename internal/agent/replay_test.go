package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
	"waggle/watcher/mesos"
	"waggle/watcher/mesos/mesostest"
	"waggle/watcher/zk"
)

func TestTheStoryIsServedStepByStep(t *testing.T) {
	const master, path = "127.0.0.1:5050", "mesos-1.12/story/subscribe-json"
	s := stream(t, master, path)
	r := replay(t, 100, s)
	want, keys := expected(t, path+".body")
	v := newSeen(t)
	cfg := mesos.DefaultConfig()
	cfg.Masters = []string{r.Addr(master).String()}
	r.Begin(s.At.Add(-time.Second))
	v.run(t, cfg)
	<-r.Until(s.Pieces[len(s.Pieces)-1].At)
	v.until(t, "the end of the story", func(s served) bool { return cmp.Equal(s.only(keys), want[len(want)-1]) })
	turns := v.all()
	inOrder(t, turns, want, keys)
	if len(turns) < 20 {
		t.Errorf("only %d turns: the story was not told step by step", len(turns))
	}
}

// TestEveryRecordedStreamIsServedStepByStep takes the streams that have no times
// as fast as they can be read.
func TestEveryRecordedStreamIsServedStepByStep(t *testing.T) {
	root := outside.Path(t, "fixtures")
	n := 0
	err := filepath.WalkDir(filepath.Join(root, "mesos-1.12"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "subscribe-json.raw") {
			return err
		}
		n++
		rel, _ := filepath.Rel(root, strings.TrimSuffix(path, ".raw"))
		t.Run(rel, func(t *testing.T) {
			s := mesostest.Scene{Master: "m", Of: "SUBSCRIBE", Raw: outside.Read(t, "fixtures", rel+".raw")}
			s.Pieces = []mesostest.Piece{{Len: len(s.Raw)}}
			servedAtTheEnd(t, s, rel+".body")
		})
		return nil
	})
	if err != nil || n < 3 {
		t.Errorf("%d streams, %v", n, err)
	}
	bins, err := filepath.Glob(filepath.Join(root, "upstream/synthetic/recordio-*.bin"))
	if err != nil || len(bins) != 5 {
		t.Fatalf("%d streams, %v", len(bins), err)
	}
	for _, bin := range bins {
		rel, _ := filepath.Rel(root, bin)
		t.Run(rel, func(t *testing.T) {
			body, err := os.ReadFile(bin)
			if err != nil {
				t.Fatal(err)
			}
			// Another framing by HTTP, as a proxy may have it: chunks of 7 bytes.
			var raw bytes.Buffer
			raw.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
			for chunk := range slices.Chunk(body, 7) {
				fmt.Fprintf(&raw, "%x\r\n%s\r\n", len(chunk), chunk)
			}
			s := mesostest.Scene{Master: "m", Of: "SUBSCRIBE", Raw: raw.Bytes()}
			s.Pieces = []mesostest.Piece{{Len: raw.Len()}}
			servedAtTheEnd(t, s, "")
		})
	}
}

// servedAtTheEnd follows a stream and compares what is served at its end with
// what its records, read at once from nothing, ask for, and with the oracle if
// all of its tasks are on their agents' network.
func servedAtTheEnd(t *testing.T, s mesostest.Scene, body string) {
	r := replay(t, 1, s)
	v := newSeen(t)
	cfg := mesos.DefaultConfig()
	cfg.Masters = []string{r.Addr(s.Master).String()}
	cfg.Resolve = noNames
	r.Begin(time.Unix(0, 0))
	v.run(t, cfg)

	_, rest, _ := bytes.Cut(s.Raw, []byte("\r\n\r\n"))
	once := newSeen(t)
	snap, err := mesos.Decode(context.Background(), bytes.NewReader(unchunk(t, rest)), mesos.RecordIO, noNames)
	if err != nil {
		t.Fatal(err)
	}
	once.take(snap)
	want := once.all()[0]
	drop := func(s served) served { // the source knows its master, the document does not
		out := served{}
		for key, value := range s {
			if !strings.HasPrefix(key, "leader.") && !strings.HasPrefix(key, "master") && !strings.HasPrefix(key, "ns1.") && !strings.HasPrefix(key, "zk-") {
				out[key] = value
			}
		}
		return out
	}
	v.until(t, fmt.Sprintf("what the document asks for: %v", want), func(s served) bool { return cmp.Equal(drop(s), drop(want)) })
	if len(want) == 0 {
		t.Error("nothing is served")
	}
	if body == "" {
		return
	}
	views, keys := expected(t, body)
	if d := cmp.Diff(views[len(views)-1], want.only(keys)); d != "" {
		t.Errorf("(-oracle +served):\n%s", d)
	}
}

func unchunk(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out []byte
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		var n int
		if _, err := fmt.Sscanf(string(line), "%x", &n); err != nil || !ok || n == 0 || n > len(rest) {
			break
		}
		out = append(out, rest[:n]...)
		b = bytes.TrimPrefix(rest[n:], []byte("\r\n"))
	}
	return out
}

// TestNothingDisappearsAcrossTheRecordedFailovers replays the life of a cluster
// whose leader is killed, and whose next leader hangs: what every master answered
// to whom, and when. No name or VIP of a task that ran through is ever missing.
func TestNothingDisappearsAcrossTheRecordedFailovers(t *testing.T) {
	const one, two, three = "127.0.0.1:5050", "127.0.0.2:5050", "127.0.0.3:5050"
	host := func(m any) string { return m.(string) + ":5050" }
	story := stream(t, one, "mesos-1.12/story/subscribe-json")
	killed := stream(t, three, "mesos-1.12/failover/sigkill-new-leader-json")
	hung := stream(t, two, "mesos-1.12/failover/sigstop-new-leader-json")
	// A leader that was killed cuts its stream; one that hangs says nothing more.
	story.Until = moment(1795448843.477)
	scenes := append(watched(t, "mesos-1.12/failover/sigkill-watch.jsonl", host), watched(t, "mesos-1.12/failover/sigstop-watch.jsonl", host)...)
	scenes = append(scenes, story, killed, hung,
		mesostest.Scene{At: killed.At, Master: three, Of: "GET_MASTER", Raw: mesostest.Answer("HTTP/1.1 200 OK\nContent-Type: application/json\n\n" + string(outside.Read(t, "fixtures/mesos-1.12/18-after-failover/post-GET_MASTER.body")))})
	r := replay(t, 80, scenes...)

	v := newSeen(t)
	cfg := mesos.DefaultConfig()
	cfg.Masters = []string{r.Addr(one).String(), r.Addr(two).String(), r.Addr(three).String()}
	election := make(elections)
	cfg.Election = election
	elect := func(list ...string) {
		var members []zk.Member
		for _, m := range list {
			members = append(members, zk.Member{Addr: r.Addr(m).String(), ID: m})
		}
		election <- members
	}
	r.Begin(story.At.Add(-time.Second))
	v.run(t, cfg)
	elect(one, three, two)
	oracle, keys := expected(t, "mesos-1.12/story/subscribe-json.body")
	through := oracle[len(oracle)-1] // all of which ran to the end
	<-r.Until(story.Until)
	v.until(t, "the end of the story", func(s served) bool { return cmp.Equal(s.only(keys), through) })
	before := len(v.all())
	<-r.Until(killed.At)
	elect(three, two) // ten seconds after the kill, as the nodes in ZooKeeper went
	<-r.Until(moment(1795448993.8))
	elect(two, one)
	<-r.Until(hung.Pieces[len(hung.Pieces)-1].At)

	last, more := expected(t, "mesos-1.12/failover/sigstop-new-leader-json.body")
	for key := range more {
		keys[key] = true
	}
	end := last[len(last)-1]
	v.until(t, fmt.Sprintf("the end: %v", end), func(s served) bool { return cmp.Equal(s.only(keys), end) })
	turns := v.all()
	inOrder(t, turns[:before], oracle, keys)
	if len(through) < 8 || !cmp.Equal(through, end) {
		t.Fatalf("served at the kill %v,\nat the end %v", through, end)
	}
	for i, turn := range turns[before:] {
		if d := cmp.Diff(through, turn.only(keys)); d != "" {
			t.Fatalf("%d turns after the kill (-served then +now):\n%s", i, d)
		}
		for _, name := range []string{"leader.mesos.", "marathon.mesos.", "slave.mesos."} {
			if turn[name] == "" {
				t.Errorf("%d turns after the kill %s is gone", i, name)
			}
		}
	}
	if len(turns[before:]) < 3 {
		t.Errorf("%d turns since the kill: nobody was followed", len(turns[before:]))
	}
}

// TestAColdStartIsWaitedOut replays what masters answered from their first
// moment, while there was something to lose: refused, 404, 503, redirects, an
// empty state with 200, and 503 again.
func TestAColdStartIsWaitedOut(t *testing.T) {
	name := func(m any) string { return fmt.Sprintf("127.0.0.%d:5050", int(m.(float64))) }
	scenes := watched(t, "mesos-1.12/startup/watch.jsonl", name)
	start := scenes[0].At
	// Before, the second led, as recorded at another time; after its recovery it
	// shows the same world.
	lead := mesostest.Scene{
		At: start.Add(-10 * time.Second), Master: "127.0.0.2:5050", Of: "SUBSCRIBE", Until: start,
		Raw: outside.Read(t, "fixtures/mesos-1.12/17-before-failover/subscribe-json.raw"),
	}
	lead.Pieces = []mesostest.Piece{{At: lead.At, Len: len(lead.Raw)}}
	again := lead
	again.At, again.Until = moment(1795449788.7736), time.Time{}
	empty := mesostest.Scene{At: moment(1795449787.4511), Master: lead.Master, Of: "/master/state"}
	empty.Raw = outside.Read(t, "fixtures/mesos-1.12/leaderless/quorum-missing/get-state.raw")
	scenes = append(scenes, lead, again, empty)

	r := replay(t, 4, scenes...)
	v := newSeen(t)
	cfg := mesos.DefaultConfig()
	for i := range 3 {
		cfg.Masters = append(cfg.Masters, r.Addr(name(float64(i+1))).String())
	}
	cfg.PollInterval = time.Millisecond // so that the empty state is asked for, too
	r.Begin(lead.At)
	v.run(t, cfg)
	_, keys := expected(t, "mesos-1.12/17-before-failover/subscribe-json.body")
	v.until(t, "all is served", func(s served) bool { return len(s.only(keys)) >= 8 })
	first := v.all()[0].only(keys)
	<-r.Until(again.At)
	turns := len(v.all())
	v.until(t, "it is followed again", func(served) bool { return len(v.all()) > turns })
	for i, turn := range v.all() {
		if d := cmp.Diff(first, turn.only(keys)); d != "" {
			t.Fatalf("turn %d (-before +now):\n%s", i, d)
		}
	}
}

// TestMastersThatDoNotLeadAreLeftForTheOneThatDoes replays what masters answer
// that do not lead, or cannot.
func TestMastersThatDoNotLeadAreLeftForTheOneThatDoes(t *testing.T) {
	lead := mesostest.Scene{Master: "127.0.0.1:5050", Of: "SUBSCRIBE", Raw: outside.Read(t, "fixtures/mesos-1.12/17-before-failover/subscribe-json.raw")}
	lead.Pieces = []mesostest.Piece{{Len: len(lead.Raw)}}
	for _, folder := range []string{"nonleader", "leaderless/quorum-missing", "leaderless/zk-unreachable"} {
		t.Run(folder, func(t *testing.T) {
			dir := "fixtures/mesos-1.12/" + folder
			other := "127.0.0.2:5050"
			scenes := []mesostest.Scene{lead}
			for of, file := range map[string]string{"SUBSCRIBE": "post-SUBSCRIBE.raw", "/master/state": "get-state.raw", "/master/redirect": "get-redirect.raw"} {
				scenes = append(scenes, mesostest.Scene{Master: other, Of: of, Raw: outside.Read(t, dir, file)})
			}
			r := replay(t, 1, scenes...)
			r.Begin(time.Unix(0, 0))
			want, keys := expected(t, "mesos-1.12/17-before-failover/subscribe-json.body")
			v := newSeen(t)
			cfg := mesos.DefaultConfig()
			cfg.Masters = []string{r.Addr(other).String()}
			if folder != "nonleader" { // which leads there by itself
				cfg.Masters = append(cfg.Masters, r.Addr(lead.Master).String())
			}
			v.run(t, cfg)
			v.until(t, "all is served", func(s served) bool { return cmp.Equal(s.only(keys), want[len(want)-1]) })
		})
	}
}

// elections is an Election whose outcome a test sends.
type elections chan []zk.Member

func (e elections) Run(ctx context.Context, elected func([]zk.Member)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-e:
			elected(m)
		}
	}
}

func noNames(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
