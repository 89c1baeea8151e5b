package mesos

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"waggle/model"
)

// bigState is a picture of 1000 agents and n tasks, ten to an app, as large as
// recorded ones: 2.8 kB a task, and another tenth of completed ones.
func bigState(n int) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		var b bytes.Buffer
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
					map[string]string{"TASK_STARTING": `"statuses":[`, "TASK_RUNNING": ","}[s], id, s, i%1000, id, strings.Repeat("m", 250), i>>16, i>>8&255, i&255, map[string]string{"TASK_RUNNING": "]"}[s])
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

// measure returns what reading n tasks leaves on the heap, with the Snapshot,
// and how many bytes were read.
func measure(tb testing.TB, n int) (kept, read int64) {
	tb.Helper()
	var before, after runtime.MemStats
	runtime.GC() // twice, for what other tests left with finalizers
	runtime.GC()
	runtime.ReadMemStats(&before)
	in := &counting{r: bigState(n)}
	p := newPlayer(tb)
	if err := p.one(in, p.handler.plan()); err != nil {
		tb.Fatal(err)
	}
	s := p.world.snapshot()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got := len(tasksOf(s)); got != n {
		tb.Fatalf("%d tasks, want %d", got, n)
	}
	runtime.KeepAlive([]any{p, s, model.Running})
	return int64(after.HeapAlloc) - int64(before.HeapAlloc), in.n
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// TestATaskCostsLittleMemory is for clusters of 100 000 tasks, which take about
// 60 MB, whatever their JSON weighs.
func TestATaskCostsLittleMemory(t *testing.T) {
	const n = 1500
	few, _ := measure(t, n)
	many, read := measure(t, 2*n)
	if per := (many - few) / n; per > 750 {
		t.Errorf("a task takes %d bytes, of JSON %d", per, read/(2*n))
	}
}

// BenchmarkPicture reads a picture of 100 000 tasks.
func BenchmarkPicture(b *testing.B) {
	for b.Loop() {
		kept, read := measure(b, 100_000)
		b.SetBytes(read)
		b.ReportMetric(float64(kept)/(1<<20), "MB-kept")
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
