package zk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	gozk "github.com/go-zookeeper/zk"
	"go.uber.org/zap"
)

// errWatched marks what only a change in ZooKeeper can mend, and a watch tells
// of that: there is no point in asking again.
var errWatched = errors.New("waiting for that to change")

// election is what one session sees of it.
type election struct {
	*Detector
	conn *gozk.Conn

	// watch tells of a change of the path since it was read; nil before and
	// after that. Another is only set then: the library keeps them all.
	watch <-chan gozk.Event
	known map[string]Member // by node, whose data never changes
}

// authenticate hands over the credentials. A server that refuses them cuts the connection.
func (e *election) authenticate(ctx context.Context) {
	for ctx.Err() == nil {
		err := e.conn.AddAuth("digest", []byte(e.cfg.Location.Auth))
		if err == nil {
			return
		}
		e.failed(ctx, fmt.Errorf("authenticate: %w", err))
		e.wait(ctx, true)
	}
}

// wait waits for a change and, with again, no longer than a while.
func (e *election) wait(ctx context.Context, again bool) {
	var retry <-chan time.Time
	if again || e.watch == nil {
		t := time.NewTimer(e.cfg.MinBackoff + rand.N(e.cfg.MaxBackoff/4+1))
		defer t.Stop()
		retry = t.C
	}
	select {
	case <-e.watch:
		e.watch = nil
	case <-retry:
	case <-ctx.Done():
	}
}

// read returns the candidates, the leader first.
func (e *election) read() ([]Member, error) {
	path := e.cfg.Location.Path
	names, err := e.list(path)
	if errors.Is(err, gozk.ErrNoNode) {
		return nil, e.absent(path)
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	members, err := e.members(candidates(names))
	if err == nil && len(members) == 0 {
		err = fmt.Errorf("%s is empty: %w, %w", path, ErrNoLeader, errWatched)
	}
	return members, err
}

func (e *election) list(path string) (names []string, err error) {
	if e.watch != nil {
		names, _, err = e.conn.Children(path)
		return names, err
	}
	names, _, watch, err := e.conn.ChildrenW(path)
	if err == nil {
		e.watch = watch
	}
	return names, err
}

// absent has the path watched, which nobody has made yet: no master ever ran.
func (e *election) absent(path string) error {
	if e.watch == nil {
		exists, _, watch, err := e.conn.ExistsW(path)
		switch {
		case err != nil:
			return fmt.Errorf("watch for %s: %w", path, err)
		case exists: // just now, and this watch would not tell of children
			return fmt.Errorf("%s has just been made: %w", path, ErrNoLeader)
		}
		e.watch = watch
	}
	return fmt.Errorf("%s does not exist: %w, %w", path, ErrNoLeader, errWatched)
}

type candidate struct {
	node   string
	form   form
	number int32
}

// candidates are the members' nodes, the leader's first: the smallest number
// leads, and numbers that have wrapped are negative and come before the others.
func candidates(names []string) []candidate {
	var out []candidate
	for _, name := range names {
		if f, n, ok := parseNode(name); ok {
			out = append(out, candidate{name, f, n})
		}
	}
	slices.SortFunc(out, func(a, b candidate) int { return cmp.Compare(a.number, b.number) })
	return out
}

// members reads who the candidates are. A leader that cannot be read is an
// error, another costs itself; one that has gone meanwhile is told by the watch.
func (e *election) members(list []candidate) ([]Member, error) {
	known := map[string]Member{}
	var out []Member
	for i, c := range list {
		m, err := e.member(c)
		switch {
		case err == nil:
			known[c.node] = m
			out = append(out, m)
		case i > 0:
			e.log.Warn("candidate left out", zap.Error(err))
		case errors.Is(err, gozk.ErrNoNode):
			return nil, fmt.Errorf("%s has just gone: %w, %w", c.node, ErrNoLeader, errWatched)
		default:
			return nil, err
		}
	}
	e.known = known
	return out, nil
}

func (e *election) member(c candidate) (Member, error) {
	if m, ok := e.known[c.node]; ok {
		return m, nil
	}
	data, _, err := e.conn.Get(e.cfg.Location.Path + "/" + c.node)
	if err != nil {
		return Member{}, fmt.Errorf("read %s: %w", c.node, err)
	}
	m, err := parseMember(c.node, c.form, data)
	if err != nil {
		return Member{}, fmt.Errorf("%w, %w", err, errWatched)
	}
	return m, nil
}
