package devcluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// marathonHeartbeat is how often Marathon sends an empty line.
const marathonHeartbeat = 10 * time.Second

// serveEvents is Marathon's stream of server-sent events, as Jetty writes it:
// CRLF lines, no ids, an empty line as heartbeat.
func (c *Cluster) serveEvents(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		plain(w, http.StatusMethodNotAllowed, "Accept must be text/event-stream")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream;charset=utf-8")
	w.Header().Set("Connection", "close")
	wanted := r.URL.Query()["event_type"]
	out := http.NewResponseController(w)
	send := func(text string) bool {
		if err := out.SetWriteDeadline(time.Now().Add(clientTimeout)); err != nil {
			return false
		}
		_, err := w.Write([]byte(text))
		return err == nil && out.Flush() == nil
	}
	changed := c.Changed()
	seen := c.appDocuments()
	if !send(eventText("event_stream_attached", map[string]any{"remoteAddress": r.RemoteAddr}, wanted)) {
		return
	}
	beat := time.NewTicker(marathonHeartbeat)
	defer beat.Stop()
	for {
		text := "\r\n"
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
		case <-changed:
			changed = c.Changed()
			now := c.appDocuments()
			text = changes(seen, now, wanted)
			seen = now
		}
		if text != "" && !send(text) {
			return
		}
	}
}

// appDocuments are the apps with their tasks, by id.
func (c *Cluster) appDocuments() map[string]appDocument {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]appDocument{}
	for id, a := range c.apps {
		out[id] = c.appDocumentLocked(a, true)
	}
	for _, t := range c.world.tasks {
		if _, known := out[t.app.ID]; !known { // removed, and ending
			out[t.app.ID] = appDocument{Tasks: []taskDocument{c.taskDocument(t)}}
		}
	}
	return out
}

// changes are the events that lead from one state to the next.
func changes(old, now map[string]appDocument, wanted []string) string {
	var out strings.Builder
	for id, a := range now {
		was, known := old[id]
		if !known || !reflect.DeepEqual(was.plainApp, a.plainApp) {
			out.WriteString(eventText("api_post_event", map[string]any{"clientIp": "127.0.0.1", "uri": "/v2/apps" + id, "appDefinition": a.plainApp}, wanted))
		}
		for _, t := range a.Tasks {
			i := slices.IndexFunc(was.Tasks, func(o taskDocument) bool { return o.ID == t.ID })
			switch {
			case i < 0 || was.Tasks[i].State != t.State:
				out.WriteString(eventText("status_update_event", statusUpdate(t, t.State), wanted))
			case !reflect.DeepEqual(was.Tasks[i].HealthCheckResults, t.HealthCheckResults):
				for _, h := range t.HealthCheckResults {
					out.WriteString(eventText("health_status_changed_event", map[string]any{
						"appId": t.AppID, "instanceId": h.InstanceID, "version": t.Version, "alive": h.Alive}, wanted))
				}
			}
		}
	}
	for id, a := range old {
		for _, t := range a.Tasks {
			if !slices.ContainsFunc(now[id].Tasks, func(n taskDocument) bool { return n.ID == t.ID }) {
				out.WriteString(eventText("status_update_event", statusUpdate(t, "TASK_KILLED"), wanted))
			}
		}
		if _, known := now[id]; !known {
			out.WriteString(eventText("app_terminated_event", map[string]any{"appId": id}, wanted))
		}
	}
	return out.String()
}

func statusUpdate(t taskDocument, state string) map[string]any {
	return map[string]any{
		"slaveId": t.SlaveID, "taskId": t.ID, "taskStatus": state, "message": "", "appId": t.AppID, "host": t.Host,
		"ipAddresses": t.IPAddresses, "ports": t.Ports, "version": t.Version,
	}
}

// eventText is one event as it is sent, empty for one that is not wanted.
func eventText(kind string, fields map[string]any, wanted []string) string {
	if len(wanted) > 0 && !slices.Contains(wanted, kind) {
		return ""
	}
	fields["eventType"], fields["timestamp"] = kind, stamp(time.Now())
	data, err := json.Marshal(fields)
	if err != nil {
		return "" // not of fields like these
	}
	return fmt.Sprintf("event: %s\r\ndata: %s\r\n\r\n", kind, data)
}
