package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"go.uber.org/zap"
)

// A question that comes back to who forwarded it would be forwarded for ever.
// That a question which is on its way is not asked again stops this by itself,
// but only when its time is over. So a question to a server near by carries an
// option that lists through whom it has come: a resolver that finds itself
// there knows at once, and knows which of its upstreams leads back.

// hop is the size of one resolver's mark: who it is and which of its upstreams
// it asked.
const hop = 10

// maxHops is how many resolvers a question may pass; more is a loop through
// somebody who does not know himself.
const maxHops = 8

var errLoop = errors.New("it forwards our own questions back to us")

// appendTrace adds the marks a question came with to the OPT record of msg,
// which starts at opt and ends the message.
func appendTrace(msg []byte, opt int, marks []byte) []byte {
	marks = marks[:min(len(marks)/hop, maxHops-1)*hop]
	if len(marks) == 0 {
		return msg
	}
	msg = binary.BigEndian.AppendUint16(msg, optionTrace)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(marks)))
	msg = append(msg, marks...)
	return setOptions(msg, opt)
}

// trace adds our own mark for u, behind those that appendTrace has added.
func (r *Resolver) trace(msg []byte, opt int, u *upstream) []byte {
	at := opt + 11
	if len(msg) == at {
		msg = append(msg, optionTrace>>8, optionTrace&0xff, 0, 0)
	}
	msg[at+3] += hop
	msg = append(msg, r.self[:]...)
	msg = binary.BigEndian.AppendUint16(msg, u.index)
	return setOptions(msg, opt)
}

// setOptions makes the length of the OPT record at opt what is behind it.
func setOptions(msg []byte, opt int) []byte {
	binary.BigEndian.PutUint16(msg[opt+9:], uint16(len(msg)-opt-11))
	return msg
}

// loops reports whether q has been here before, and leaves the upstream alone
// that brought it back.
func (r *Resolver) loops(q *question, now time.Time) bool {
	for marks := q.trace; len(marks) >= hop; marks = marks[hop:] {
		if !bytes.Equal(marks[:len(r.self)], r.self[:]) {
			continue
		}
		for _, u := range r.now.Load().upstreams {
			if u.index != binary.BigEndian.Uint16(marks[len(r.self):]) {
				continue
			}
			if s, _ := u.standing(now); s != broken {
				r.log.Warn("an upstream forwards our questions back to us, so it is left alone", zap.Stringer("upstream", u))
			}
			u.rest(now, loopRest, errLoop)
		}
		return true
	}
	return len(q.trace) >= maxHops*hop
}
