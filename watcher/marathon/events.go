package marathon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
)

// eventTypes are the events that say that a task, an app or a pod has changed.
var eventTypes = []string{
	"status_update_event", "instance_changed_event", "instance_health_changed_event", "unknown_instance_terminated_event",
	"health_status_changed_event", "app_terminated_event", "api_post_event",
	"pod_created_event", "pod_updated_event", "pod_deleted_event",
	"deployment_success", "deployment_failed", "group_change_success",
}

// readEvents reads a stream of server-sent events (WHATWG HTML, section 9.2) and
// gives each to take; alive is called for every line, heartbeats included. An
// event of more than limit bytes comes without its data. It returns when the
// stream ends.
func readEvents(r io.Reader, limit int, alive func(), take func(kind string, data []byte)) error {
	in := bufio.NewReaderSize(r, 16<<10)
	var kind string
	var data []byte
	fields, cut := 0, false
	for {
		line, whole, err := readLine(in, limit)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		alive()
		if len(line) == 0 && whole {
			if fields > 0 {
				if cut {
					data = nil
				}
				take(kind, data)
			}
			kind, data, fields, cut = "", nil, 0, false
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			kind = string(value)
			fields++
		case "data":
			if fields++; data != nil {
				data = append(data, '\n')
			}
			cut = cut || !whole || len(data)+len(value) > limit
			if !cut {
				data = append(data, value...)
			}
		}
	}
}

// readLine reads a line without its end, of which it keeps limit bytes.
func readLine(in *bufio.Reader, limit int) (line []byte, whole bool, err error) {
	whole = true
	for {
		part, err := in.ReadSlice('\n')
		if room := limit - len(line); len(part) > room {
			part, whole = part[:max(0, room)], false
		}
		line = append(line, part...)
		if err == nil {
			return bytes.TrimRight(line, "\r\n"), whole, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, false, err
		}
	}
}

// changed returns the paths that an event concerns. all says that it may be any.
func changed(kind string, data []byte) (paths []string, all bool) {
	if !slices.Contains(eventTypes, kind) {
		return nil, false // an older Marathon sends what was not asked for
	}
	var e struct {
		AppID         string `json:"appId"`
		RunSpecID     string `json:"runSpecId"`
		URI           string `json:"uri"`
		GroupID       string `json:"groupId"`
		AppDefinition struct {
			ID string `json:"id"`
		} `json:"appDefinition"`
		Plan struct {
			Steps []struct {
				action
				Actions []action `json:"actions"`
			} `json:"steps"`
		} `json:"plan"`
	}
	if json.Unmarshal(data, &e) != nil {
		return nil, true
	}
	add := func(ids ...string) {
		for _, id := range ids {
			if id != "" && !slices.Contains(paths, path(id)) {
				paths = append(paths, path(id))
			}
		}
	}
	add(e.AppID, e.RunSpecID, e.AppDefinition.ID)
	if pod, ok := strings.CutPrefix(e.URI, "/v2/pods/"); ok {
		pod, _, _ = strings.Cut(pod, "::")
		pod, _, _ = strings.Cut(pod, "?")
		add(pod)
	}
	for _, s := range e.Plan.Steps {
		add(s.App, s.Pod)
		for _, a := range s.Actions {
			add(a.App, a.Pod)
		}
	}
	return paths, kind == "group_change_success" || len(paths) == 0 && strings.HasPrefix(kind, "deployment_")
}

// action is a part of a step of a deployment.
type action struct {
	App string `json:"app"`
	Pod string `json:"pod"`
}
