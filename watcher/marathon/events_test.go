package marathon

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
)

type oneEvent struct{ Kind, Data string }

func eventsOf(r io.Reader, limit int) (out []oneEvent, lines int) {
	_ = readEvents(r, limit, func() { lines++ }, func(kind string, data []byte) { out = append(out, oneEvent{kind, string(data)}) })
	return out, lines
}

func TestEventsAsJettyWritesThem(t *testing.T) {
	got, lines := eventsOf(bytes.NewReader(outside.Read(t, "fixtures", "upstream", "marathon", "events", "jetty-sse-framing.bin")), 1<<20)
	if d := cmp.Diff([]oneEvent{{"status_update_event", `{"a":1}`}}, got); d != "" || lines != 5 {
		t.Errorf("%d lines (-want +got):\n%s", lines, d)
	}
}

func TestEventsOfEveryKindOfFraming(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	tests := []struct {
		name, text string
		want       []oneEvent
	}{
		{"line feeds alone, a comment, an id", "id: 3\n: hello\nevent:a\ndata:1\n\n", []oneEvent{{"a", "1"}}},
		{"data of two lines", "event: a\ndata: 1\ndata: 2\n\n", []oneEvent{{"a", "1\n2"}}},
		{"an event without data", "event: a\n\n\n\n", []oneEvent{{"a", ""}}},
		{"longer than what is read at once", "event: a\ndata: " + long + "\n\nevent: b\n\n", []oneEvent{{"a", long}, {"b", ""}}},
		{"longer than is kept", "event: a\ndata: " + long + long + "\n\nevent: b\ndata: 1\n\n", []oneEvent{{"a", ""}, {"b", "1"}}},
		{"cut off", "event: a\ndata: 1\n", nil},
	}
	for _, tt := range tests {
		if got, _ := eventsOf(strings.NewReader(tt.text), 64<<10); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %d events, want %d", tt.name, len(got), len(tt.want))
		}
	}
}

func TestWhatAnEventConcerns(t *testing.T) {
	tests := []struct {
		file  string
		paths []string
		all   bool
	}{
		{"doc-status_update_event.json", []string{"/my-app"}, false},
		{"doc-instance_changed_event.json", []string{"/app-id"}, false},
		{"doc-health_status_changed_event.json", []string{"/my-app"}, false},
		{"doc-app_terminated_event.json", []string{"/my-app"}, false},
		{"doc-api_post_event.json", []string{"/my-app"}, false},
		{"doc-group_change_success.json", nil, true},
		{"doc-deployment_success.json", nil, true},
		{"doc-pod_updated_event.json", []string{"/my-pod"}, false},
		{"doc-framework_message_event.json", nil, false},
	}
	for _, tt := range tests {
		text := outside.Read(t, "fixtures", "upstream", "marathon", "events", tt.file)
		kind := strings.TrimSuffix(strings.TrimPrefix(tt.file, "doc-"), ".json")
		paths, all := changed(kind, text)
		t.Log(tt.file, paths, all)
		if !slices.Equal(paths, tt.paths) || all != tt.all {
			t.Errorf("%s: %v %v, want %v %v", tt.file, paths, all, tt.paths, tt.all)
		}
	}
	for _, tt := range []struct {
		kind, data string
		paths      []string
		all        bool
	}{
		{"pod_updated_event", `{"uri": "/v2/pods/g/pod?force=true"}`, []string{"/g/pod"}, false},
		{"pod_deleted_event", `{"uri": "/v2/pods//g/pod::versions/1"}`, []string{"/g/pod"}, false},
		{"deployment_success", `{"plan": {"steps": [{"actions": [{"app": "/a"}, {"pod": "/p"}]}, {"app": "/a"}]}}`, []string{"/a", "/p"}, false},
		{"status_update_event", `nonsense`, nil, true},
		{"status_update_event", ``, nil, true},
		{"deployment_info", `{"plan": {}}`, nil, false},
	} {
		if paths, all := changed(tt.kind, []byte(tt.data)); !slices.Equal(paths, tt.paths) || all != tt.all {
			t.Errorf("%s %s: %v %v, want %v %v", tt.kind, tt.data, paths, all, tt.paths, tt.all)
		}
	}
}

// FuzzEvents holds that a stream reads the same however it arrives, and that what
// an event concerns are paths.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("event: status_update_event\r\ndata: {\"appId\":\"/a\"}\r\n\r\n\r\n"))
	f.Add([]byte(":\n\ndata\nevent\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, n := eventsOf(bytes.NewReader(text), 64)
		pieces, m := eventsOf(iotest.OneByteReader(bytes.NewReader(text)), 64)
		if !slices.Equal(whole, pieces) || n != m {
			t.Fatalf("at once %v (%d lines), by and by %v (%d lines)", whole, n, pieces, m)
		}
		for _, e := range whole {
			paths, _ := changed(e.Kind, []byte(e.Data))
			for _, p := range paths {
				if !strings.HasPrefix(p, "/") {
					t.Fatal(fmt.Sprint(e, " concerns ", p))
				}
			}
		}
	})
}
