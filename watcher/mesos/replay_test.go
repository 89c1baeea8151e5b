package mesos

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
	"waggle/model"
	"waggle/watcher/mesos/mesostest"
)

// recording returns the records of a recorded stream, RecordIO or one a line.
func recording(tb testing.TB, path string) [][]byte {
	tb.Helper()
	text := outside.Read(tb, "fixtures", path)
	if strings.HasSuffix(path, ".ndjson") || strings.HasSuffix(path, ".json") {
		return bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	}
	var out [][]byte
	r := newRecordReader(bytes.NewReader(text))
	for {
		_, err := r.next(anySize)
		if err == io.EOF {
			return out
		}
		record, err2 := io.ReadAll(r)
		if err != nil || err2 != nil {
			return out // a stream ends where its master died
		}
		out = append(out, record)
	}
}

var streams = []string{
	"mesos-1.12/story/subscribe-json.body",
	"mesos-1.12/17-before-failover/subscribe-json.body",
	"mesos-1.12/18-after-failover/subscribe-json.body",
	"mesos-1.12/failover/hang-old-leader-json.body",
	"mesos-1.12/failover/sigkill-new-leader-json.body",
	"mesos-1.12/failover/sigstop-new-leader-json.body",
	"upstream/mesos-v1/streams/master-failover-recovered-agent.ndjson",
	"upstream/mesos-v1/streams/networks-matrix.ndjson",
	"upstream/mesos-v1/streams/pod-two-containers.ndjson",
	"upstream/mesos-v1/streams/sdk-framework-removed.ndjson",
	"upstream/mesos-v1/streams/sdk-overlay-vips.ndjson",
	"upstream/synthetic/recordio-master-failover-recovered-agent.bin",
	"upstream/synthetic/recordio-networks-matrix.bin",
	"upstream/synthetic/recordio-pod-two-containers.bin",
	"upstream/synthetic/recordio-sdk-framework-removed.bin",
	"upstream/synthetic/recordio-sdk-overlay-vips.bin",
	"dcos-net/operator-api.json",
	"dcos-net/hello-overlay.json",
	"dcos-net/hello-world.json",
	"dcos-net/pod-tasks.json",
	"dcos-net/recovered-agents.json",
}

// TestRecordingsAreFollowedRecordByRecord sends every recorded stream over HTTP
// to a Source, and after each record compares what it published with what the
// oracle makes of the same records.
func TestRecordingsAreFollowedRecordByRecord(t *testing.T) {
	for _, path := range streams {
		t.Run(path, func(t *testing.T) {
			all := recording(t, path)
			if len(all) < 2 {
				t.Fatalf("%d records", len(all))
			}
			m := serve(t, all[0])
			f, o := follow(t, soon(m.Addr().String())), newOracle()
			for n, record := range all {
				if n > 0 {
					m.Send(record)
				}
				o.event(t, record)
				eventually(t, "the record is taken", func() bool { return int(f.counter("waggle_mesos_events_total")) == n+1 })
				if _, s, _ := f.published(); cmp.Diff(o.view(), viewOf(s)) != "" {
					t.Fatalf("after record %d, %.200s (-oracle +published):\n%s", n, record, cmp.Diff(o.view(), viewOf(s)))
				}
			}
			_, last, _ := f.published()
			if p := last.AllProblems(); len(p) > 0 {
				t.Errorf("problems: %v", p)
			}
			if n := f.counter("waggle_mesos_reconnects_total"); n != 0 {
				t.Errorf("the stream was lost %v times", n)
			}
		})
	}
}

// TestEveryRecordingIsFollowed fails when a recording is added that the list
// above forgets.
func TestEveryRecordingIsFollowed(t *testing.T) {
	listed := map[string]bool{}
	for _, path := range streams {
		listed[path] = true
	}
	root := outside.Path(t, "fixtures")
	for _, pattern := range []string{"mesos-1.12/*/*json.body", "upstream/mesos-v1/streams/*.ndjson", "upstream/synthetic/recordio-*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Errorf("%s: %v, %v", pattern, found, err)
		}
		for _, path := range found {
			if rel, _ := filepath.Rel(root, path); !listed[rel] {
				t.Errorf("%s is not followed", rel)
			}
		}
	}
}

// TestTheStoryIsTold holds the recorded life of a cluster against what happened
// to it, by reasoning over its time line and not by reading its records.
func TestTheStoryIsTold(t *testing.T) {
	p := newPlayer(t)
	states := map[model.TaskState]bool{}
	frameworks := map[string]bool{}
	most := 0
	for _, record := range recording(t, "mesos-1.12/story/subscribe-json.body") {
		p.play(record)
		s := p.world.snapshot()
		for _, app := range s.Apps.All() {
			for _, task := range app.Tasks {
				states[task.State] = true
				if task.State == model.Running && !task.HostNetwork() {
					t.Fatalf("task %v runs at %v on agent %v, but all shared their agent's network", task.Key, task.Addrs, task.AgentAddr)
				}
			}
		}
		for _, f := range s.Frameworks.All() {
			frameworks[f.Name] = true
		}
		most = max(most, s.Agents.Len())
	}
	if want := map[model.TaskState]bool{model.Preparing: true, model.Running: true, model.Killing: true}; !cmp.Equal(states, want) {
		t.Errorf("states seen: %v, want %v", states, want)
	}
	if want := map[string]bool{"marathon": true, "other": true}; !cmp.Equal(frameworks, want) {
		t.Errorf("frameworks seen: %v, want %v", frameworks, want)
	}
	if most < 2 {
		t.Errorf("at most %d agents", most)
	}
}

// TestAllWaysToAskTellTheSame reads one moment of a genuine cluster from the
// stream, from GET_STATE and from the older /state.
func TestAllWaysToAskTellTheSame(t *testing.T) {
	for _, moment := range []string{"17-before-failover", "18-after-failover"} {
		t.Run(moment, func(t *testing.T) {
			first := recording(t, "mesos-1.12/"+moment+"/subscribe-json.body")[0]
			stream := decode(t, string(mesostest.Record(first)), Auto)
			call := decode(t, string(outside.Read(t, "fixtures", "mesos-1.12", moment, "post-GET_STATE.body")), Auto)
			old := decode(t, string(outside.Read(t, "fixtures", "mesos-1.12", moment, "get-state.body")), Auto)
			if d := diffSnapshots(stream, call); d != "" {
				t.Errorf("(-stream +GET_STATE):\n%s", d)
			}
			if !old.Leader.IsValid() {
				t.Error("/state names no leader")
			}
			want, got := contentOf(stream), contentOf(old)
			got.Leader = want.Leader // the stream's is known from its connection
			unify(want)
			unify(got)
			for id, f := range got.Frameworks {
				same := *f
				same.Port = 0 // which only /state tells, by the framework's pid
				got.Frameworks[id] = &same
			}
			if d := cmp.Diff(want, got, plainly); d != "" {
				t.Errorf("(-stream +/state):\n%s", d)
			}
			if len(want.Apps) == 0 {
				t.Error("nothing ran then")
			}
		})
	}
}

// unify writes port ranges as /state does, which joins neighbours.
func unify(c content) {
	for _, app := range c.Apps {
		for i, task := range app.Tasks {
			t := *task
			t.Resources = nil
			for _, r := range task.Resources {
				if n := len(t.Resources); n > 0 && t.Resources[n-1].Last+1 == r.First {
					t.Resources[n-1].Last = r.Last
				} else {
					t.Resources = append(t.Resources, r)
				}
			}
			app.Tasks[i] = &t
		}
	}
}

// TestOldStatesMadeFromStreamsTellTheSame: the states of the mesos-dns fixtures
// were written from the end of the DC/OS streams, with running tasks only.
func TestOldStatesMadeFromStreamsTellTheSame(t *testing.T) {
	for _, name := range []string{"operator-api", "hello-overlay", "pod-tasks", "recovered-agents", "tcp-and-udp", "unhealthy", "vip-labels", "dns-hostname"} {
		t.Run(name, func(t *testing.T) {
			v1 := running(decode(t, string(outside.Read(t, "fixtures", "dcos-net", name+".json")), Auto))
			v0 := running(decode(t, string(outside.Read(t, "fixtures", "mesos-dns", "state-from-"+name+".json")), Auto))
			if d := cmp.Diff(v1, v0, plainly); d != "" {
				t.Errorf("(-stream +state):\n%s", d)
			}
			if len(v0) == 0 {
				t.Error("no task runs")
			}
		})
	}
}

// facts are what those states kept of a task.
type facts struct {
	Name, Framework, Agent string
	Addrs                  []string
}

func running(s *model.Snapshot) map[model.TaskKey]facts {
	out := map[model.TaskKey]facts{}
	for key, task := range tasksOf(s) {
		if task.State != model.Running {
			continue
		}
		f := facts{Name: task.DiscoveryName(), Framework: task.Framework, Agent: task.AgentAddr.String()}
		for _, a := range task.Addrs {
			f.Addrs = append(f.Addrs, a.Addr.String())
		}
		out[key] = f
	}
	return out
}

func TestEveryRecordedStateIsRead(t *testing.T) {
	for path, want := range map[string]struct{ tasks, problems int }{
		"fixtures/mesos-dns/big-state.json":                                               {1836, 0},
		"fixtures/mesos-dns/edge-state.json":                                              {135, 6},
		"fixtures/mesos-dns/mesos-dns-fake.json":                                          {10, 0},
		"fixtures/upstream/mesos-v0/state-mesos-dns-fake.json":                            {10, 0},
		"fixtures/upstream/mesos-v0/state-0.23.0-marathon-1-task.json":                    {1, 0},
		"fixtures/upstream/mesos-v0/state-0.27.0-1-service-with-executor-task.json":       {4, 0},
		"fixtures/upstream/mesos-v0/state-1.2.0-healthy-tasks-in-mesos-and-marathon.json": {3, 0},
		"fixtures/upstream/mesos-v1/docs/017-GET_STATE-response.json":                     {0, 1},
		"fixtures/mesos-1.12/failover/sigkill-first-state.body":                           {0, 0},
		"fixtures/mesos-1.12/failover/sigstop-first-state.body":                           {4, 0},
		"fixtures/mesos-1.12/leaderless/quorum-missing/get-state.body":                    {0, 0},
	} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(outside.Path(t, path))
			if err != nil {
				t.Fatal(err)
			}
			s := decode(t, string(text), Auto)
			got := struct{ tasks, problems int }{problems: len(s.AllProblems())}
			for _, app := range s.Apps.All() {
				got.tasks += len(app.Tasks) // two apps may each have a task of one id
			}
			if got != want {
				t.Errorf("got %+v, want %+v: %.5v", got, want, s.AllProblems())
			}
		})
	}
}

// TestRecordedRefusalsAreUnderstood answers with what genuine masters answered
// to SUBSCRIBE while they did not lead.
func TestRecordedRefusalsAreUnderstood(t *testing.T) {
	answer := func(path string) *http.Response {
		r := bufio.NewReader(bytes.NewReader(outside.Read(t, "fixtures", "mesos-1.12", path)))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	leaderless := answer("leaderless/quorum-missing/post-SUBSCRIBE.raw")
	text, err := io.ReadAll(leaderless.Body)
	if err != nil {
		t.Fatal(err)
	}
	leads, m := serve(t, picture), serve(t, nil)
	m.Refuse(leaderless.StatusCode, string(text))
	f := follow(t, soon(m.Addr().String()))
	if err := f.errOnce(); !strings.Contains(err.Error(), strings.TrimSpace(string(text))) {
		t.Errorf("got %v, want the master's %q", err, text)
	}
	aside := answer("nonleader/post-SUBSCRIBE.raw")
	location := aside.Header.Get("Location")
	host, path, ok := strings.Cut(strings.TrimPrefix(location, "//"), "/")
	if !ok || host == "" {
		t.Fatalf("the recorded redirect goes to %q", location)
	}
	m.SetAnswer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for key, values := range aside.Header {
			w.Header()[key] = values
		}
		w.Header().Set("Location", "//"+leads.Addr().String()+"/"+path) // our leader in place of theirs
		w.WriteHeader(aside.StatusCode)
	}))
	f.until(shows("1", "2"))
}
