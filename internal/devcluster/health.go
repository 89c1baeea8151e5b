package devcluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// eagerInterval is how often a task is checked during its grace period, when
// failures do not count: who waits for it to be ready need not wait a whole
// intervalSeconds.
const eagerInterval = 200 * time.Millisecond

// mesos reports whether the verdicts of h travel through Mesos.
func (h HealthCheck) mesos() bool {
	return h.Protocol == "COMMAND" || strings.HasPrefix(h.Protocol, "MESOS_")
}

// kind is HTTP, HTTPS, TCP, COMMAND, or empty for a protocol unknown.
func (h *HealthCheck) kind() string {
	k := strings.TrimPrefix(h.Protocol, "MESOS_")
	if slices.Contains([]string{"HTTP", "HTTPS", "TCP"}, k) || h.Protocol == "COMMAND" {
		return k
	}
	return ""
}

func (h *HealthCheck) scheme() string { return strings.ToLower(h.kind()) }

func (h *HealthCheck) index() int {
	if h.PortIndex == nil {
		return 0
	}
	return *h.PortIndex
}

// port is the port to check of a task that has ports.
func (h *HealthCheck) port(ports []int) int {
	if h.Port != 0 {
		return h.Port
	}
	return ports[h.index()]
}

// checkLoop runs one health check of a task until ctx ends, and tells verdict
// what each turn found. Failures during the grace period are not told.
func (c *Cluster) checkLoop(ctx context.Context, t *task, i int) {
	h := &t.app.HealthChecks[i]
	interval := seconds(h.IntervalSeconds)
	graceEnd := time.Now().Add(seconds(h.GracePeriodSeconds))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for passed := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := c.probe(ctx, t, h)
		if ctx.Err() != nil {
			return
		}
		passed = passed || err == nil
		next := interval
		if !passed && time.Now().Before(graceEnd) {
			next = min(eagerInterval, interval)
		} else {
			c.verdict(t, i, err)
		}
		timer.Reset(next)
	}
}

// probe checks once; nil means healthy.
func (c *Cluster) probe(ctx context.Context, t *task, h *HealthCheck) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(h.TimeoutSeconds))
	defer cancel()
	if h.kind() == "COMMAND" {
		cmd := t.command
		cmd.argv, cmd.grace, cmd.quiet = shell(h.Command.Value), 0, true
		return c.run(ctx, cmd, func(int) {})
	}
	addr := net.JoinHostPort(c.cfg.AgentAddr.String(), strconv.Itoa(h.port(t.ports)))
	if h.kind() == "TCP" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return probeHTTP(ctx, h.scheme()+"://"+addr+"/"+strings.TrimPrefix(h.Path, "/"))
}

func probeHTTP(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A connection kept for the next check would outlive the task, and no
	// certificate is made out for an agent's address.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// checkState is what one health check of a task has found so far.
type checkState struct {
	judged      bool // there is a verdict
	alive       bool
	failures    int // in a row
	first, last time.Time
	lastFailure time.Time
	cause       string
}

// errUnhealthy ends a task whose check failed too often.
var errUnhealthy = errors.New("killed: failed its health check too often")

// verdict takes in what check i of t found. It announces the result where
// Mesos carries it, and ends the task at maxConsecutiveFailures.
func (c *Cluster) verdict(t *task, i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.killing || t.record.State != stateRunning {
		return
	}
	h, s := &t.app.HealthChecks[i], &t.checks[i]
	alive := err == nil
	news := !s.judged || s.alive != alive
	s.judged, s.alive = true, alive
	if now := time.Now(); alive {
		s.failures, s.last = 0, now
		if s.first.IsZero() {
			s.first = now
		}
	} else {
		s.failures++
		s.lastFailure, s.cause = now, err.Error()
	}
	// Mesos tells of each failure, and of success when it is news.
	if h.mesos() && (news || !alive) {
		c.statusLocked(t, status{state: stateRunning, reason: "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED", healthy: &alive})
	}
	if limit := h.MaxConsecutiveFailures; limit > 0 && s.failures >= limit {
		t.cause = fmt.Errorf("%w (last: %s)", errUnhealthy, s.cause)
		c.failedLocked(t, t.cause)
		c.killLocked(t)
	}
	c.pokeLocked()
}
