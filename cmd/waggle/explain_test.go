package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"waggle/explain"
	"waggle/watcher/mesos/mesostest"
)

// recordedEvents is an event stream of one task with a VIP, as it is recorded.
func recordedEvents() []byte {
	return mesostest.Subscribed(15,
		[]map[string]any{mesostest.Agent("S0", netip.MustParseAddr("10.0.0.1"))},
		[]map[string]any{mesostest.Framework("F", "marathon")},
		[]mesostest.Task{{
			Framework: "F", Agent: "S0", ID: "web.1", Name: "web", State: "TASK_RUNNING", IP: netip.MustParseAddr("9.0.0.1"),
			Ports: []mesostest.Port{{Number: 8080, Name: "http", Protocol: "tcp", Labels: []string{"VIP_0", "/web:80"}}},
		}})
}

func TestExplainOfARecordedDocument(t *testing.T) {
	for _, tt := range []struct {
		query string
		code  int
		says  []string
	}{
		{"web.1", exitOK, []string{"task web.1\n", "state-running", "backend 9.0.0.1:8080 of the VIP web.marathon"}},
		{"web.marathon.mesos", exitOK, []string{"name web.marathon.mesos.\n", "A 9.0.0.1"}},
		{"/web:80", exitOK, []string{"vip 11.", "fold to web.marathon", "backend-up"}},
		{"nobody", exitFailed, []string{"! unknown"}},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), env{
			args: []string{"explain", "--file", "-", tt.query}, stdin: bytes.NewReader(recordedEvents()), stdout: &out, stderr: &errs,
		})
		if code != tt.code {
			t.Errorf("explain %s: exit code %d: %s", tt.query, code, errs.String())
		}
		for _, want := range tt.says {
			if !strings.Contains(out.String(), want) {
				t.Errorf("explain %s does not say %q:\n%s", tt.query, want, out.String())
			}
		}
	}
}

func TestExplainAsJSON(t *testing.T) {
	var out, errs bytes.Buffer
	code := run(t.Context(), env{
		args: []string{"explain", "--file", "-", "-o", "json", "web"}, stdin: bytes.NewReader(recordedEvents()), stdout: &out, stderr: &errs,
	})
	var a explain.Answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil || code != exitOK || !a.Found || a.Query != "web" || a.Subjects[0].Kind != "task" {
		t.Errorf("exit code %d, %v, %s%s", code, err, out.String(), errs.String())
	}
}
