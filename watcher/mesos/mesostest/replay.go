package mesostest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Scene is what a recorded master answers to one kind of request from At on,
// until a later Scene of the same kind.
type Scene struct {
	At     time.Time
	Master string // host:port as recorded
	Of     string // a call's type, "SUBSCRIBE" say, or a path such as "/master/state"

	// Raw is the answer as it was on the wire, with headers and framing; nil is a
	// connection that is cut. Addresses of masters in its headers are replaced by
	// those of the replay.
	Raw []byte
	// Pieces is when which bytes of Raw came; nil is at once.
	Pieces []Piece
	// Hangs has the master take the request and say nothing.
	Hangs bool
	// Until is when the connection is cut, whatever is left; zero leaves an answer
	// as it is and a stream open.
	Until time.Time
}

// Piece is a part of a recorded answer and when it came.
type Piece struct {
	At       time.Time
	Off, Len int
}

// Replay is several recorded masters on loopback ports, and the time of the
// recording, which runs faster than ours. Its methods are safe for concurrent
// use once Begin was called.
type Replay struct {
	scenes  []Scene
	scale   float64
	masters map[string]net.Listener
	from    time.Time // recorded
	begun   time.Time // ours
	end     chan struct{}
	serving sync.WaitGroup
}

// NewReplay listens for the masters of scenes. Recorded time will run scale
// times as fast as ours. The caller closes it.
func NewReplay(scale float64, scenes []Scene) (*Replay, error) {
	r := &Replay{scenes: scenes, scale: scale, masters: map[string]net.Listener{}, end: make(chan struct{})}
	slices.SortStableFunc(r.scenes, func(a, b Scene) int { return a.At.Compare(b.At) })
	for _, s := range scenes {
		if r.masters[s.Master] != nil {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			r.Close()
			return nil, err
		}
		r.masters[s.Master] = l
	}
	return r, nil
}

// Addr returns where the master recorded as name listens.
func (r *Replay) Addr(name string) netip.AddrPort {
	return r.masters[name].Addr().(*net.TCPAddr).AddrPort()
}

// Begin lets recorded time run from the given moment, and serves.
func (r *Replay) Begin(from time.Time) {
	r.from, r.begun = from, time.Now()
	for name, l := range r.masters {
		r.serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				r.serving.Go(func() {
					defer c.Close()
					r.serve(c, name)
				})
			}
		})
	}
}

// Close stops everything and waits for it.
func (r *Replay) Close() {
	close(r.end)
	for _, l := range r.masters {
		l.Close()
	}
	r.serving.Wait()
}

// Until returns a channel that is closed when recorded time is t.
func (r *Replay) Until(t time.Time) <-chan time.Time {
	return time.After(time.Until(r.begun.Add(time.Duration(float64(t.Sub(r.from)) / r.scale))))
}

// wait waits until recorded time is t and reports whether the replay goes on.
func (r *Replay) wait(t time.Time) bool {
	select {
	case <-r.Until(t):
		return true
	case <-r.end:
		return false
	}
}

func (r *Replay) scene(master, of string) (found Scene, ok bool) {
	now := r.from.Add(time.Duration(float64(time.Since(r.begun)) * r.scale))
	for _, s := range r.scenes {
		if s.Master == master && s.Of == of && !s.At.After(now) {
			found, ok = s, true
		}
	}
	return found, ok
}

func (r *Replay) serve(c net.Conn, master string) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	of := req.URL.Path
	var call struct {
		Type string `json:"type"`
	}
	if req.Method == http.MethodPost && json.Unmarshal(body, &call) == nil {
		of = call.Type
	}
	s, ok := r.scene(master, of)
	switch {
	case ok && s.Hangs:
		<-r.end
	case ok && s.Raw != nil:
		r.answer(c, s)
	}
}

func (r *Replay) answer(c net.Conn, s Scene) {
	if s.Pieces == nil {
		_, _ = c.Write(r.rewrite(s.Raw))
		return
	}
	for _, p := range s.Pieces {
		if !r.wait(p.At) {
			return
		}
		if _, err := c.Write(s.Raw[p.Off : p.Off+p.Len]); err != nil {
			return
		}
	}
	if s.Until.IsZero() {
		<-r.end
		return
	}
	r.wait(s.Until)
}

// rewrite replaces the addresses of masters in the headers.
func (r *Replay) rewrite(raw []byte) []byte {
	head, rest, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	text := string(head)
	for name := range r.masters {
		text = strings.ReplaceAll(text, "//"+name, "//"+r.Addr(name).String())
	}
	return append([]byte(text+"\r\n\r\n"), rest...)
}

// Answer makes the bytes of an answer that was noted as text: a status line and
// headers, each on a line, and the body. What cannot be read is nil, a
// connection that is cut.
func Answer(text string) []byte {
	status, rest, _ := strings.Cut(text, "\n")
	if !strings.HasPrefix(status, "HTTP/1.1 ") {
		return nil
	}
	var out strings.Builder
	out.WriteString(status + "\r\n")
	for {
		line, after, more := strings.Cut(rest, "\n")
		key, value, isHeader := strings.Cut(line, ": ")
		if !isHeader || !more && !strings.Contains(key, "-") && key != "Location" {
			break
		}
		if key != "Content-Length" {
			out.WriteString(key + ": " + value + "\r\n")
		}
		if rest = after; !more {
			break
		}
	}
	body := strings.TrimPrefix(rest, "\n")
	fmt.Fprintf(&out, "Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return []byte(out.String())
}
