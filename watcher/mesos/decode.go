package mesos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"waggle/model"
	"waggle/watcher"
)

// Format is the form of a recorded document.
type Format string

// The forms there are.
const (
	Auto     Format = "auto"      // found out from the content
	Events   Format = "events"    // one event a line, or in an array
	RecordIO Format = "recordio"  // events as a master sends them
	GetState Format = "get_state" // the answer to GET_STATE, of a master or an agent
	State    Format = "state"     // the answer to GET /state
	Marathon Format = "marathon"  // Marathon's, which package marathon decodes
)

// Formats returns the names that ParseFormat takes.
func Formats() []string {
	return []string{string(Auto), string(Events), string(RecordIO), string(GetState), string(State), string(Marathon)}
}

// ParseFormat reads the name of a Format.
func ParseFormat(name string) (Format, error) {
	if !slices.Contains(Formats(), name) {
		return "", fmt.Errorf("%q is none of %s", name, strings.Join(Formats(), ", "))
	}
	return Format(name), nil
}

// Decode reads one recorded document of Mesos and returns what ran at its end.
// What cannot be read costs only itself and is among the Problems, a cut-off
// stream included; the error is for a document that holds no picture at all. Host
// names are looked up with resolve before Decode returns.
func Decode(ctx context.Context, r io.Reader, f Format, resolve func(context.Context, string) ([]netip.Addr, error)) (*model.Snapshot, error) {
	in := bufio.NewReader(r)
	if f == Auto {
		text, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read document: %w", err)
		}
		if f, err = Detect(text); err != nil {
			return nil, err
		}
		in = bufio.NewReader(bytes.NewReader(text))
	}
	if f == Marathon {
		return nil, errors.New("a document of Marathon, not of Mesos")
	}
	d := &document{scanner: newScanner()}
	d.handler = d.newHandler()
	if err := d.read(in, f); err != nil {
		return nil, fmt.Errorf("read as %s: %w", f, err)
	}
	if d.world == nil {
		return nil, fmt.Errorf("read as %s: no picture of a cluster in it", f)
	}
	for id, addr := range watcher.LookupAll(ctx, resolve, d.world.unresolved) {
		d.world.resolved(id, addr)
	}
	snap := d.world.snapshot()
	snap.Leader = d.leader
	return snap, nil
}

// document is a recorded document while it is read.
type document struct {
	handler *handler
	scanner *scanner
	world   *world // nil before a picture
	leader  netip.AddrPort
}

func (d *document) read(in *bufio.Reader, f Format) error {
	plan := d.handler.plan()
	switch f {
	case State:
		d.begin()
		plan = d.world.statePlan(func(a netip.AddrPort) { d.leader = a })
		return d.one(in, plan)
	case GetState:
		return d.one(in, plan)
	case Events:
		return d.events(in, plan)
	default:
		return d.records(in, plan)
	}
}

func (d *document) begin() { d.world = newWorld(&model.Snapshot{}) }

func (d *document) one(in io.Reader, plan map[string]visit) error {
	d.scanner.reset(in)
	return d.handler.read(d.scanner, plan)
}

// newHandler returns what applies events as a Source does, but takes an update
// for an unknown task as it comes: there is nobody to ask again.
func (d *document) newHandler() *handler {
	h := handlerInto(&d.world, func(err error) { d.world.wrong("", &fieldError{"task_updated", "", err}) })
	h.kind, h.interval = func(string) {}, func(float64) {}
	h.picture, h.lost = d.begin, h.wrong
	return h
}

// events reads one event after the other: each on a line of its own as they are
// recorded, or laid out over several lines, or the elements of an array. What
// is no JSON costs what follows up to the next line that begins with a brace.
func (d *document) events(in *bufio.Reader, plan map[string]visit) error {
	var chunk []byte
	for n, start := 1, 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		array := bytes.HasPrefix(bytes.TrimSpace(chunk), []byte("["))
		if bytes.HasPrefix(line, []byte("{")) && !array {
			if err := d.chunk(chunk, start, plan); err != nil {
				return err
			}
			chunk, start = nil, n
		}
		chunk = append(chunk, line...)
		if err == io.EOF {
			return d.chunk(chunk, start, plan)
		}
	}
}

// chunk reads the events of a text that begins at a line.
func (d *document) chunk(text []byte, line int, plan map[string]visit) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	for {
		at := dec.InputOffset()
		var event json.RawMessage
		err := dec.Decode(&event)
		if err == io.EOF {
			return nil
		}
		list := []json.RawMessage{event}
		if err == nil && event[0] == '[' {
			err = json.Unmarshal(event, &list)
		}
		for i := 0; i < len(list) && err == nil; i++ {
			err = d.one(bytes.NewReader(list[i]), plan)
		}
		if err == nil {
			continue
		}
		space := len(text[at:]) - len(bytes.TrimLeft(text[at:], " \t\r\n"))
		line += bytes.Count(text[:int(at)+space], []byte("\n"))
		err = &fieldError{fmt.Sprintf("line %d", line), "", err}
		if d.world == nil {
			return err
		}
		d.handler.wrong(err)
		return nil
	}
}

// records reads a stream as a master sends it. What is lost of it leaves what
// it told before.
func (d *document) records(in io.Reader, plan map[string]visit) error {
	r := newRecordReader(in)
	for {
		_, err := r.next(DefaultConfig().MaxPicture)
		if err == io.EOF {
			return nil
		}
		framed := err == nil
		if framed {
			err = d.one(r, plan)
		}
		if err == nil {
			continue
		}
		err = &fieldError{fmt.Sprintf("record %d", r.n), "", err}
		if d.world == nil {
			return err
		}
		if d.handler.wrong(err); !framed {
			return nil
		}
	}
}

// Detect tells the form from the first byte, or from the keys of the first
// document.
func Detect(text []byte) (Format, error) {
	text = bytes.TrimLeft(text, " \t\r\n")
	if len(text) > 0 && text[0] >= '0' && text[0] <= '9' {
		return RecordIO, nil
	}
	if len(text) > 0 && text[0] == '[' {
		if f, err := Detect(text[1:]); err == nil && (f == Events || f == Marathon) {
			return f, nil
		}
	}
	if len(text) == 0 || text[0] != '{' {
		return "", errors.New("neither RecordIO nor a JSON object; name its form")
	}
	forms := map[string]Format{
		"get_state": GetState, "slaves": State, "frameworks": State, "leader": State,
		"apps": Marathon, "app": Marathon, "groups": Marathon, "pods": Marathon, "spec": Marathon,
	}
	var found Format
	s := newScanner()
	s.reset(bytes.NewReader(text))
	err := s.members(func(key []byte) error {
		if f, ok := forms[string(key)]; ok {
			found = f
		} else if string(key) == "type" && found == "" {
			found = Events
		}
		return s.skip()
	})
	switch {
	case found != "": // what else is wrong with it is said when it is read
		return found, nil
	case err != nil:
		return "", fmt.Errorf("read first document: %w", err)
	}
	return "", errors.New("neither events, nor GET_STATE, nor /state, nor of Marathon; name its form")
}
