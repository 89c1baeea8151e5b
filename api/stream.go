package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	changesPath = "/v2/changes"
	// maxStreams is how many clients may follow at once.
	maxStreams = 256
	// batch is how many changes are sent between two looks at whether the client
	// is still there.
	batch = 256
	// trafficEvery is the time between two events of the topics that are not kept.
	trafficEvery = 2 * time.Second
)

// Reset is the event that tells a client to take the lists anew.
type Reset struct {
	Why string `json:"why"`
}

// Pulse is the event of the topic traffic.
type Pulse struct {
	Status  Status  `json:"status"`
	Traffic Traffic `json:"traffic"`
}

// stream answers GET /v2/changes: server-sent events (WHATWG HTML, section 9.2)
// with ids. A client that gives the last id it has seen, as Last-Event-ID or
// ?after=, gets what has come since; where that is no longer known, or it gives
// none, the first event is reset, after which it takes the lists and follows on.
type stream struct {
	s      *Server
	w      http.ResponseWriter
	rc     *http.ResponseController
	topics []topic
	at     position
}

func (s *Server) changes(w http.ResponseWriter, r *http.Request) {
	topics, err := topicsOf(r.URL.Query().Get("topics"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "topics: %v", err)
		return
	}
	if !s.feed.join(maxStreams) {
		refuse(w, http.StatusServiceUnavailable, "%d clients follow already", maxStreams)
		return
	}
	defer s.feed.leave()
	s.feed.take(s.view) // so that what follows is worked out from what is now
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	st := &stream{s: s, w: w, rc: http.NewResponseController(w), topics: topics}
	// The error is always that the client is gone, or too slow and cut: it comes
	// back with the last id.
	_ = st.run(r.Context(), lastID(r))
}

func lastID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("after")
}

func topicsOf(text string) ([]topic, error) {
	if text == "" {
		return []topic{topicVIPs, topicRecords}, nil
	}
	var out []topic
	for name := range strings.SplitSeq(text, ",") {
		switch t := topic(name); t {
		case topicVIPs, topicRecords, topicTraffic:
			out = append(out, t)
		default:
			return nil, fmt.Errorf("%q is none of vips, records, traffic", name)
		}
	}
	return out, nil
}

func (st *stream) run(ctx context.Context, id string) error {
	why := "a client that comes for the first time"
	if id != "" {
		st.at, why = st.s.feed.at(id)
	}
	if why != "" {
		if err := st.reset(why); err != nil {
			return err
		}
	}
	tick := time.NewTicker(trafficEvery)
	defer tick.Stop()
	if err := st.pulse(); err != nil {
		return err
	}
	for {
		list, next, more, ok := st.s.feed.after(st.at, batch)
		switch {
		case !ok:
			if err := st.reset("too far behind, what came meanwhile is forgotten"); err != nil {
				return err
			}
			continue
		case len(list) > 0:
			if err := st.send(list, next); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		case <-tick.C:
			if err := st.pulse(); err != nil {
				return err
			}
		}
	}
}

// reset has the client start from now.
func (st *stream) reset(why string) error {
	st.at = st.s.feed.now()
	return st.event("reset", st.s.feed.id(st.at), Reset{why})
}

// send writes what the client wants of a list, of which the last one is before
// next.
func (st *stream) send(list []entry, next position) error {
	var b strings.Builder
	at := position{next.next - uint64(len(list))}
	for _, e := range list {
		at.next++
		if slices.Contains(st.topics, e.of) {
			fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: %s\n\n", st.s.feed.id(at), e.of, e.data)
		}
	}
	st.at = next
	return st.write(b.String())
}

// pulse sends what is now, or a comment, by which a client that is gone is found
// out.
func (st *stream) pulse() error {
	if !slices.Contains(st.topics, topicTraffic) {
		return st.write(": still here\n\n")
	}
	return st.event(string(topicTraffic), "", Pulse{st.s.view().Status(), st.s.meter.read(time.Now())})
}

func (st *stream) event(name, id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	return st.write(fmt.Sprintf("%sevent: %s\ndata: %s\n\n", id, name, data))
}

// write gives a client s.patience to take what is sent.
func (st *stream) write(text string) error {
	if text == "" {
		return nil
	}
	if err := st.rc.SetWriteDeadline(time.Now().Add(st.s.patience)); err != nil {
		return err
	}
	if _, err := st.w.Write([]byte(text)); err != nil {
		return err
	}
	return st.rc.Flush()
}
