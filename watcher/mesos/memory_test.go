package mesos

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strings"
	"testing"
	"time"
)

// bigState is a picture of 1000 agents and n tasks, ten to an app, as large as
// recorded ones: 2.8 kB a task, and another tenth of completed ones.
func bigState(n int) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		var b bytes.Buffer
		b.Grow(1 << 17)
		message := strings.Repeat("m", 250)
		b.WriteString(`{"type":"SUBSCRIBED","subscribed":{"heartbeat_interval_seconds":15.0,"get_state":{"get_frameworks":{"frameworks":[{"framework_info":{"id":{"value":"30257977-0153-499d-a5b0-35afd842ef4d-0001"},"name":"marathon"}}]},"get_agents":{"agents":[`)
		for i := range 1000 {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"agent_info":{"id":{"value":"30257977-0153-499d-a5b0-35afd842ef4d-S%d"},"hostname":"10.1.%d.%d","port":5051},"active":true,"pid":"slave(1)@10.1.%d.%d:5051"}`, i, i/250, i%250+1, i/250, i%250+1)
		}
		task := func(i int, state string) {
			id := fmt.Sprintf("group_app-%d.0ef76549-2630-11e8-af52-%012d", i/10, i)
			fmt.Fprintf(&b, `{"name":"app-%[1]d.group","task_id":{"value":%[2]q},"framework_id":{"value":"30257977-0153-499d-a5b0-35afd842ef4d-0001"},"agent_id":{"value":"30257977-0153-499d-a5b0-35afd842ef4d-S%[3]d"},"state":%[4]q,"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1},"allocation_info":{"role":"slave_public"}},{"name":"mem","type":"SCALAR","scalar":{"value":128.0},"allocation_info":{"role":"slave_public"}},{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":20560,"end":20560}]},"allocation_info":{"role":"slave_public"}}],`, i/10, id, i%1000, state)
			for _, s := range []string{"TASK_STARTING", "TASK_RUNNING"} {
				fmt.Fprintf(&b, `%s{"task_id":{"value":%q},"state":%q,"source":"SOURCE_EXECUTOR","timestamp":1520871002.3,"uuid":"abcdefghijklmnopqrstuvwx==","agent_id":{"value":"30257977-0153-499d-a5b0-35afd842ef4d-S%d"},"executor_id":{"value":%q},"message":"%s","container_status":{"container_id":{"value":"0ef76549-2630-11e8-af52-70b3d5800001"},"network_infos":[{"name":"dcos","ip_addresses":[{"protocol":"IPv4","ip_address":"9.%d.%d.%d"}]}]}}%s`,
					map[string]string{"TASK_STARTING": `"statuses":[`, "TASK_RUNNING": ","}[s], id, s, i%1000, id, message, i>>16, i>>8&255, i&255, map[string]string{"TASK_RUNNING": "]"}[s])
			}
			fmt.Fprintf(&b, `,"labels":{"labels":[{"key":"HAPROXY_GROUP","value":"external"}]},"discovery":{"visibility":"FRAMEWORK","name":"app-%d.group","ports":{"ports":[{"number":8080,"name":"http","protocol":"tcp","labels":{"labels":[{"key":"VIP_0","value":"/group/app-%d:80"},{"key":"network-scope","value":"container"},{"key":"network-name","value":"dcos"}]}}]}},"container":{"type":"DOCKER","docker":{"image":"python:3-alpine","network":"USER","privileged":false}},"kill_policy":{"grace_period":{"nanoseconds":30000000000}}}`, i/10, i/10)
			if b.Len() > 1<<16 {
				pw.Write(b.Bytes())
				b.Reset()
			}
		}
		b.WriteString(`]},"get_tasks":{"tasks":[`)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			task(i, "TASK_RUNNING")
		}
		b.WriteString(`],"completed_tasks":[`)
		for i := range n / 10 {
			if i > 0 {
				b.WriteByte(',')
			}
			task(i+n, "TASK_FINISHED")
		}
		b.WriteString(`]}}}}`)
		pw.Write(b.Bytes())
		pw.Close()
	}()
	return pr
}

// cost is what reading a picture takes.
type cost struct {
	kept int64 // bytes on the heap afterwards, with the Snapshot
	peak int64 // most bytes on the heap meanwhile, garbage included
	read int64 // bytes of JSON
}

// measure reads a picture of n tasks as a Source does.
func measure(tb testing.TB, n int) cost {
	tb.Helper()
	h := newHeir(tb)
	return h.measure(n, false)
}

// measure reads a picture of n tasks, beside the one before where it comes again.
func (h *heir) measure(n int, again bool) cost {
	h.tb.Helper()
	old := h.world
	runtime.GC() // twice, for what other tests left with finalizers
	runtime.GC()
	before := heap()
	in := &counter{r: bigState(n)}
	stop, peak := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		most := int64(0)
		for {
			select {
			case <-tick.C:
				most = max(most, heap())
			case <-stop:
				peak <- most
				return
			}
		}
	}()
	restore := frugally(again)
	err := h.one(in, h.handler.plan())
	if again {
		h.world.adopt(old, patience, false)
	}
	h.snapshot()
	restore()
	close(stop)
	c := cost{peak: <-peak - before, read: in.n}
	if err != nil {
		h.tb.Fatal(err)
	}
	runtime.GC()
	c.kept = heap() - before
	if got := h.world.tasks.len(); got != n || h.last.Apps.Len() != n/10 {
		h.tb.Fatalf("%d tasks and %d apps, want %d tasks", got, h.last.Apps.Len(), n)
	}
	runtime.KeepAlive([]any{h, old})
	return c
}

// heap is the size of all objects, garbage that was not swept yet included.
func heap() int64 {
	sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// TestAPictureIsReadInLittleMemory is the promise for large clusters: 100 000
// tasks, 280 MB of JSON, need no more than 64 MB of heap, what is kept and what is
// garbage together. A second picture needs no more beside the first.
func TestAPictureIsReadInLittleMemory(t *testing.T) {
	n, limit := 100_000, int64(64<<20)
	if raceEnabled || testing.Short() {
		n, limit = n/10, limit/10+2<<20
	}
	for _, again := range []bool{false, true} {
		var c cost
		for range 3 { // a busy machine may keep the collector waiting
			h := newHeir(t)
			if again {
				h.measure(n, false)
			}
			if c = h.measure(n, again); c.peak <= limit {
				break
			}
		}
		t.Logf("again %t: %d tasks, %d MB of JSON: %.1f MB kept, %.1f MB at most", again, n, c.read>>20, float64(c.kept)/(1<<20), float64(c.peak)/(1<<20))
		if c.peak > limit {
			t.Errorf("again %t: %d bytes kept, %d at most", again, c.kept, c.peak)
		}
	}
}

// BenchmarkPicture reads a picture of 100 000 tasks.
func BenchmarkPicture(b *testing.B) {
	for b.Loop() {
		c := measure(b, 100_000)
		b.SetBytes(c.read)
		b.ReportMetric(float64(c.kept)/(1<<20), "MB-kept")
		b.ReportMetric(float64(c.peak)/(1<<20), "MB-peak")
	}
}

// BenchmarkEvent takes one update of one task among 100 000, and publishes.
func BenchmarkEvent(b *testing.B) {
	p := newPlayer(b)
	if err := p.one(bigState(100_000), p.handler.plan()); err != nil {
		b.Fatal(err)
	}
	p.world.snapshot()
	plan := p.handler.plan()
	event := func(state string) []byte {
		return fmt.Appendf(nil, `{"type":"TASK_UPDATED","task_updated":{"framework_id":{"value":"30257977-0153-499d-a5b0-35afd842ef4d-0001"},"state":%q,"status":{"task_id":{"value":"group_app-7.0ef76549-2630-11e8-af52-000000000077"},"state":%q,"timestamp":1.0,"message":%q}}}`,
			state, state, strings.Repeat("m", 400))
	}
	events := [][]byte{event("TASK_RUNNING"), event("TASK_KILLING")}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := p.one(bytes.NewReader(events[i%2]), plan); err != nil {
			b.Fatal(err)
		}
		p.world.sweep()
		p.world.snapshot()
	}
}
