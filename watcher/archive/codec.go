package archive

import (
	"bufio"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"net/netip"
	"time"

	"waggle/model"
)

// A file is the magic, the version, a gob stream and the CRC-32C of all that,
// numbers in network order. The gob stream is a head and then each app. Gob
// leaves out what is zero and names what it does not, so a field more or less
// in the model changes nothing; the version has to, where a field's meaning does.
const (
	magic   = "waggle snapshot\n"
	version = 1
	frame   = len(magic) + 4 // before the stream
	trailer = crc32.Size
)

// head is everything but the apps.
type head struct {
	Published  time.Time
	Leader     netip.AddrPort
	Masters    []netip.AddrPort
	Agents     []*model.Agent
	Frameworks []*model.Framework
	Held       map[string]*model.Hold
	Problems   []model.Problem
	Apps       int
}

// record is one app.
type record struct {
	App *model.App
}

// summed passes writes on and sums them up.
type summed struct {
	to  io.Writer
	sum hash.Hash32
}

// Write implements io.Writer.
func (s summed) Write(p []byte) (int, error) {
	s.sum.Write(p)
	return s.to.Write(p)
}

// encode writes snap, published at the time at, to w.
func encode(w io.Writer, snap *model.Snapshot, at time.Time) error {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	buf := bufio.NewWriterSize(summed{w, sum}, 64<<10)
	if _, err := buf.Write(binary.BigEndian.AppendUint32([]byte(magic), version)); err != nil {
		return err
	}
	h := head{
		Published: at, Leader: snap.Leader, Masters: snap.Masters, Problems: snap.Problems, Apps: snap.Apps.Len(),
		Held: maps.Collect(snap.Held.All()),
	}
	for _, a := range snap.Agents.All() {
		h.Agents = append(h.Agents, a)
	}
	for _, f := range snap.Frameworks.All() {
		h.Frameworks = append(h.Frameworks, f)
	}
	enc := gob.NewEncoder(buf)
	if err := enc.Encode(&h); err != nil {
		return err
	}
	for _, app := range snap.Apps.All() {
		if err := enc.Encode(&record{app}); err != nil {
			return err
		}
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

// decode reads what encode wrote. It looks at nothing of a file whose frame or
// sum is wrong.
func decode(r io.ReaderAt, size int64) (*model.Snapshot, time.Time, error) {
	if err := check(r, size); err != nil {
		return nil, time.Time{}, err
	}
	stream := io.NewSectionReader(r, int64(frame), size-int64(frame+trailer))
	return decodeStream(bufio.NewReaderSize(stream, 64<<10))
}

// check returns what is wrong with the frame of a file.
func check(r io.ReaderAt, size int64) error {
	if size < int64(frame+trailer) {
		return fmt.Errorf("%d bytes are too few for a file of ours", size)
	}
	start := make([]byte, frame)
	if _, err := r.ReadAt(start, 0); err != nil {
		return err
	}
	if string(start[:len(magic)]) != magic {
		return errors.New("not a file of ours")
	}
	if v := binary.BigEndian.Uint32(start[len(magic):]); v != version {
		return fmt.Errorf("version %d, this waggle reads version %d", v, version)
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, size-trailer)); err != nil {
		return err
	}
	want := make([]byte, trailer)
	if _, err := r.ReadAt(want, size-trailer); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(want) != sum.Sum32() {
		return errors.New("damaged or cut short: its checksum is wrong")
	}
	return nil
}

func decodeStream(r io.Reader) (*model.Snapshot, time.Time, error) {
	dec := gob.NewDecoder(r)
	var h head
	if err := dec.Decode(&h); err != nil {
		return nil, time.Time{}, fmt.Errorf("read head: %w", err)
	}
	snap := &model.Snapshot{Leader: h.Leader, Masters: h.Masters, Problems: h.Problems}
	agents, frameworks, held := snap.Agents.Edit(), snap.Frameworks.Edit(), snap.Held.Edit()
	for id, h := range h.Held {
		held.Set(id, h)
	}
	for _, a := range h.Agents {
		agents.Set(a.ID, a)
	}
	for _, f := range h.Frameworks {
		frameworks.Set(f.ID, f)
	}
	apps, one := snap.Apps.Edit(), words{}
	for i := range h.Apps {
		var rec record
		if err := dec.Decode(&rec); err != nil {
			return nil, time.Time{}, fmt.Errorf("read app %d of %d: %w", i+1, h.Apps, err)
		}
		if err := sound(rec.App); err != nil {
			return nil, time.Time{}, fmt.Errorf("app %d of %d: %w", i+1, h.Apps, err)
		}
		one.share(rec.App)
		apps.Set(rec.App.Key, rec.App)
	}
	snap.Agents, snap.Frameworks, snap.Held, snap.Apps = agents.Groups(), frameworks.Groups(), held.Groups(), apps.Groups()
	return snap, h.Published, nil
}

// sound returns an error for an app that breaks what the model promises.
func sound(a *model.App) error {
	if a == nil || len(a.Tasks) == 0 {
		return errors.New("no task in it")
	}
	for i, t := range a.Tasks {
		switch {
		case t.State > model.Terminal || t.Health > model.Unhealthy:
			return fmt.Errorf("task %s: state %d or health %d is unknown", t.Key.ID, t.State, t.Health)
		case i > 0 && t.Key.ID <= a.Tasks[i-1].Key.ID:
			return fmt.Errorf("task %s is out of order", t.Key.ID)
		}
	}
	return nil
}

// words keeps one copy of each text that very many tasks hold.
type words map[string]string

func (w words) one(s *string) {
	if have, ok := w[*s]; ok {
		*s = have
		return
	}
	w[*s] = *s
}

func (w words) share(a *model.App) {
	w.one(&a.Key.FrameworkID)
	w.one(&a.Key.Name)
	w.one(&a.Framework)
	for _, t := range a.Tasks {
		for _, s := range []*string{&t.Key.FrameworkID, &t.Name, &t.Framework, &t.AgentID} {
			w.one(s)
		}
		for i := range t.Addrs {
			w.one(&t.Addrs[i].Network)
		}
		w.labels(t.Labels)
		for i := range t.Ports {
			w.one(&t.Ports[i].Name)
			w.one(&t.Ports[i].Network)
			w.labels(t.Ports[i].Labels)
		}
		if t.Discovery == nil {
			continue
		}
		w.one(&t.Discovery.Name)
		for i := range t.Discovery.Ports {
			w.one(&t.Discovery.Ports[i].Name)
			w.one(&t.Discovery.Ports[i].Protocol)
			w.labels(t.Discovery.Ports[i].Labels)
		}
	}
}

func (w words) labels(list []model.Label) {
	for i := range list {
		w.one(&list[i].Key)
		w.one(&list[i].Value)
	}
}
