package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
)

// liveKeys are those that a running daemon takes from a changed configuration,
// a key that ends in a dot with all below it. All others wait for a restart.
var liveKeys = []string{
	"dns.allow", "dns.transfer", "dns.limit.", "dns.ttl", "dns.dcos_ttl", "dns.ip_sources", "dns.exact",
	"dns.records", "dns.public", "dns.rfc952", "dns.srv_weight", "dns.soa.",
	"dns.forward.upstreams", "dns.forward.zones", "dns.forward.local", "dns.forward.ca_file", "dns.forward.timeout",
	"dns.forward.stale", "dns.forward.cache_mb", "dns.forward.missing_mb", "dns.forward.in_flight",
	"vip.choice", "vip.affinity", "vip.locality", "vip.drain", "vip.allow", "vip.services",
	"lb.grace", "lb.node", "lb.exclude", "log.level",
}

// live reports whether a running daemon takes a change of key.
func live(key string) bool {
	return slices.ContainsFunc(liveKeys, func(k string) bool {
		return k == key || strings.HasSuffix(k, ".") && strings.HasPrefix(key, k)
	})
}

// reloader brings a changed configuration into a running daemon.
type reloader struct {
	daemon *daemon
	flags  *configFlags
	level  zap.AtomicLevel
	notify *notifier
	now    fileConfig // what runs
	log    *zap.Logger

	last    atomic.Pointer[reload]
	reloads *prometheus.CounterVec
}

// reload is how the last one went.
type reload struct {
	at      time.Time
	err     error    // why nothing was taken; nil if it was
	waiting []string // keys whose change waits for a restart
}

func newReloader(d *daemon, flags *configFlags, level zap.AtomicLevel, n *notifier, reg prometheus.Registerer) *reloader {
	r := &reloader{daemon: d, flags: flags, level: level, notify: n, now: d.cfg, log: d.log.Named("configuration")}
	r.last.Store(&reload{at: time.Now()})
	f := promauto.With(reg)
	r.reloads = f.NewCounterVec(prometheus.CounterOpts{
		Name: "waggle_config_reloads_total", Help: "Times that the configuration was read again, by whether it was taken.",
	}, []string{"result"})
	for _, result := range []string{"taken", "refused"} {
		r.reloads.WithLabelValues(result)
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "waggle_config_last_reload_success", Help: "Whether the configuration was taken when it was read last: 1 or 0.",
	}, func() float64 {
		if r.last.Load().err != nil {
			return 0
		}
		return 1
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "waggle_config_keys_waiting", Help: "Keys whose change waits for a restart.",
	}, func() float64 { return float64(len(r.last.Load().waiting)) })
	return r
}

// run reloads whenever hup says so, until ctx ends.
func (r *reloader) run(ctx context.Context, hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-hup:
		}
		_ = r.notify.say(reloading()...) // told again below, and by tell
		cfg, err := r.flags.load()
		if err == nil {
			err = r.take(cfg)
		}
		if err != nil {
			r.last.Store(&reload{at: time.Now(), err: err})
			r.reloads.WithLabelValues("refused").Inc()
			r.log.Error("not taken, what ran goes on", zap.Error(err))
		}
		_ = r.notify.say("READY=1")
	}
}

// take applies what of cfg can be applied, and keeps the rest as it is.
func (r *reloader) take(cfg fileConfig) error {
	next := r.now
	from, to := reflect.ValueOf(cfg), reflect.ValueOf(&next).Elem()
	var taken, waiting []string
	for _, k := range r.flags.keys {
		was, is := to.FieldByIndex(k.field), from.FieldByIndex(k.field)
		switch {
		case reflect.DeepEqual(was.Interface(), is.Interface()):
		case live(k.name):
			was.Set(is)
			taken = append(taken, k.name)
		default:
			waiting = append(waiting, k.name)
		}
	}
	if err := next.check(); err != nil {
		return fmt.Errorf("with what waits for a restart: %w", err)
	}
	if r.daemon.forward != nil {
		own := ownServer(next.DNS.addrPorts(ignore))
		if err := r.daemon.forward.Reconfigure(next.forwarder(own, ignore), next.DNS.Forward.roots(ignore)); err != nil {
			return fmt.Errorf("dns.forward: %w", err)
		}
	}
	r.level.SetLevel(next.Log.Level)
	r.daemon.dns.SetAccess(next.dnsServer())
	r.daemon.kernelDNS.Forget()
	r.daemon.agent.Reconfigure(next.agent())
	r.now = next
	r.last.Store(&reload{at: time.Now(), waiting: waiting})
	r.reloads.WithLabelValues("taken").Inc()
	r.log.Info("read again", zap.Strings("taken", taken))
	for _, key := range waiting {
		r.log.Warn("change waits for a restart", zap.String("key", key))
	}
	return nil
}

// reasons say what of the configuration is not in use.
func (r *reloader) reasons() []string {
	last := r.last.Load()
	if last.err != nil {
		return []string{fmt.Sprintf("configuration read at %s not taken: %s", last.at.Format(time.TimeOnly), strings.ReplaceAll(last.err.Error(), "\n", "; "))}
	}
	if len(last.waiting) > 0 {
		return []string{"a restart is needed for changes of " + strings.Join(last.waiting, ", ")}
	}
	return nil
}
