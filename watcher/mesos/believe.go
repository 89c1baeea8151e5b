package mesos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// registerMargin is what an agent is waited for beyond the time that the master
// gives it: when that is over, nothing is said.
const registerMargin = 30 * time.Second

// errEmpty is why a picture was not believed.
var errEmpty = errors.New("picture without any agent")

// believeLocked makes a complete picture the world that is published, or says
// why not; turn is held. A master that has just been elected may show an empty
// world before it has read its registry, and a broken one for longer: where there
// were agents, that is believed only once it has been so for EmptyHold.
func (s *Source) believeLocked(w *world, leader netip.AddrPort) error {
	now := time.Now()
	if known := s.last.Agents.Len(); w.empty() && known > 0 {
		if s.emptySince.IsZero() {
			s.emptySince = now
		}
		if left := s.cfg.EmptyHold - now.Sub(s.emptySince); left > 0 {
			return fmt.Errorf("%w from %s where %d are known: not believed for another %s", errEmpty, leader, known, left.Round(time.Second))
		}
		s.log.Warn("there is no agent any more", zap.Int("were known", known), zap.Time("empty since", s.emptySince))
	}
	s.emptySince = time.Time{}
	w.adopt(s.world, s.cfg.ReregisterTimeout+registerMargin, s.last.Leader == leader)
	s.world = w
	s.setStatus(func(status *Status) { *status = Status{Connected: true, Leader: leader.String(), LastEvent: now} })
	s.metrics.connected.Set(1)
	return nil
}

// learnPatience asks the master how long it waits for agents to register and
// since when it leads, and has w wait as long. Where it does not say, what is
// configured stands.
func (s *Source) learnPatience(ctx context.Context, master *url.URL, w *world) {
	var flags struct {
		GetFlags struct {
			Flags []struct{ Name, Value string }
		} `json:"get_flags"`
	}
	var lead struct {
		GetMaster struct {
			ElectedTime float64 `json:"elected_time"`
		} `json:"get_master"`
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FirstByte)
	defer cancel()
	err := errors.Join(s.client.call(ctx, master, "GET_FLAGS", &flags), s.client.call(ctx, master, "GET_MASTER", &lead))
	if err != nil {
		s.log.Info("master does not say how long it waits for agents", zap.Error(err))
	}
	timeout := s.cfg.ReregisterTimeout
	for _, f := range flags.GetFlags.Flags {
		if d, err := parseDuration(f.Value); err == nil && f.Name == "agent_reregister_timeout" {
			timeout = d
		}
	}
	now, since := time.Now(), time.Now()
	if t := lead.GetMaster.ElectedTime; t > 0 && t < math.MaxInt32 {
		// The master's clock may be wrong, but not by so much that agents are not
		// waited for at all.
		since = time.UnixMilli(int64(1000 * t))
		if since.After(now) {
			since = now
		}
	}
	until := since.Add(timeout)
	if until.Before(now) {
		until = now
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.world != w {
		return
	}
	if w.extend(until.Add(registerMargin)); w.publishable() {
		s.publishLocked(s.last.Leader)
	}
}

// call makes a call of the operator API that answers with one document.
func (c client) call(ctx context.Context, master *url.URL, name string, into any) error {
	a, err := c.ask(ctx, master, http.MethodPost, "/api/v1", `{"type":"`+name+`"}`)
	if err != nil {
		return err
	}
	defer a.body.Close()
	if err := json.NewDecoder(a.body).Decode(into); err != nil {
		return fmt.Errorf("read answer to %s: %w", name, err)
	}
	return nil
}

// parseDuration reads a duration as Mesos writes it: a number and one of ns, us,
// ms, secs, mins, hrs, days, weeks.
func parseDuration(text string) (time.Duration, error) {
	for unit, d := range map[string]time.Duration{
		"ns": time.Nanosecond, "us": time.Microsecond, "ms": time.Millisecond, "secs": time.Second,
		"mins": time.Minute, "hrs": time.Hour, "days": 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
	} {
		number, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err == nil && n >= 0 && n*float64(d) < math.MaxInt64 {
			return time.Duration(n * float64(d)), nil
		}
	}
	return 0, fmt.Errorf("%q is no duration of Mesos", text)
}
