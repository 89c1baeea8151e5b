package feature

import (
	"errors"
	"time"

	"waggle/lb"
	"waggle/vip"
)

// drained connects to two backends, of which one is then being drained. It
// returns the connections to that one and to the other.
func drained(w *world, o vip.Options) (gone, stays *conn, err error) {
	w.node.File(w) // so that its sockets are found
	one, two := w.backend(awayAddr.Addr()), w.backend(awayAddr.Addr())
	if err := w.serve(vip4, 0, o, sorted(one, two)...); err != nil {
		return nil, nil, err
	}
	for range 200 {
		c, err := w.dial(w.node, vip4.Addr)
		if err != nil {
			return nil, nil, err
		}
		w.Cleanup(func() { c.Close() })
		if c.to == two.Addr {
			gone = c
		} else {
			stays = c
		}
		if gone != nil && stays != nil {
			return gone, stays, w.serve(vip4, time.Second, o, one)
		}
	}
	return nil, nil, errors.New("all connections go to one of two backends")
}

func drain(w *world) error {
	gone, stays, err := drained(w, vip.Options{Drain: time.Minute})
	if err != nil {
		return err
	}
	got, err := w.shares(vip4, 20)
	return errors.Join(err, gone.echo(), stays.echo(), disagree(got[gone.to] == 0, "new connections go to who is drained: %v", got))
}

func drainEnd(w *world) error {
	o := vip.Options{Drain: time.Minute}
	gone, stays, err := drained(w, o)
	if err != nil {
		return err
	}
	if err := w.serve(vip4, time.Hour, o, w.rows[vip4].Backends...); err != nil {
		return err
	}
	if d, ok := w.plane.(interface {
		Disconnect(ended []lb.Drain) (int, error)
	}); ok {
		if _, err := d.Disconnect(w.plan.Ended); err != nil {
			return err
		}
	}
	over := w.within(func() error {
		return disagree(gone.echo() != nil, "the connection to who was drained goes on")
	})
	return errors.Join(over, stays.echo())
}

// restart closes and opens the balancer, and connects before it has been told
// anything.
func restart(w *world) error {
	b := w.backend(awayAddr.Addr())
	if err := w.serve(vip4, 0, vip.Options{}, b); err != nil {
		return err
	}
	if err := w.plane.Close(); err != nil {
		return err
	}
	between := w.reaches(vip4, b)
	w.plane = w.bed.Open(w)
	return errors.Join(between, w.reaches(vip4, b))
}

func repair(w *world) error {
	r, ok := w.plane.(repairer)
	if !ok || w.bed.Damage == nil {
		return errNotOffered
	}
	b := w.backend(awayAddr.Addr())
	if err := w.serve(vip4, 0, vip.Options{}, b); err != nil {
		return err
	}
	w.bed.Damage(w)
	if w.reaches(vip4, b) == nil {
		return errors.New("it was not damaged")
	}
	return errors.Join(r.Repair(w.Context()), w.reaches(vip4, b))
}
