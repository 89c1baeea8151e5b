package mesos

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"waggle/model"
)

// fakeResolve knows localhost only.
func fakeResolve(_ context.Context, host string) ([]netip.Addr, error) {
	if host == "localhost" {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return nil, errors.New("no such host")
}

// tasksOf returns all tasks of a Snapshot.
func tasksOf(s *model.Snapshot) map[model.TaskKey]*model.Task {
	out := map[model.TaskKey]*model.Task{}
	for _, app := range s.Apps.All() {
		for _, t := range app.Tasks {
			out[t.Key] = t
		}
	}
	return out
}

func unmarshal(tb testing.TB, text []byte, v any) {
	tb.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		tb.Fatal(err)
	}
}
