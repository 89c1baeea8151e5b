package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
)

// QueryLogConfig says which queries are logged. Logging is done beside
// answering: when the log cannot keep up, lines are dropped and counted.
type QueryLogConfig struct {
	// Sample logs one of so many queries, chosen at random; 0 logs none.
	Sample uint32
	// Names keeps the sample to these names and what is below them; none is all.
	Names []string
	// Slow logs every query that takes longer, whatever its name; 0 logs none.
	Slow time.Duration
}

// logged is one query as it is logged.
type logged struct {
	client  netip.AddrPort
	proto   string
	name    string // empty for none
	rrtype  uint16
	rcode   int
	answers int
	size    int
	took    time.Duration
	slow    bool
}

// queryLog picks queries and writes them down.
type queryLog struct {
	cfg   QueryLogConfig
	names []string
	log   *zap.Logger
	lines chan logged
	lost  func()
}

// waiting is how many lines may wait to be written.
const waiting = 256

func newQueryLog(cfg QueryLogConfig, log *zap.Logger, lost func()) *queryLog {
	l := &queryLog{cfg: cfg, log: log, lines: make(chan logged, waiting), lost: lost}
	for _, n := range cfg.Names {
		l.names = append(l.names, strings.ToLower(fqdn(n)))
	}
	return l
}

// on reports whether any query may be logged.
func (l *queryLog) on() bool { return l.cfg.Sample > 0 || l.cfg.Slow > 0 }

// note takes a query into the log if it is picked; describe says what it was.
func (l *queryLog) note(took time.Duration, describe func() logged) {
	slow := l.cfg.Slow > 0 && took > l.cfg.Slow
	if !slow && (l.cfg.Sample == 0 || rand.Uint32N(l.cfg.Sample) != 0) {
		return
	}
	e := describe()
	e.took, e.slow = took, slow
	if !slow && !l.wanted(e.name) {
		return
	}
	select {
	case l.lines <- e:
	default:
		l.lost()
	}
}

func (l *queryLog) wanted(name string) bool {
	name = strings.ToLower(name)
	return len(l.names) == 0 || slices.ContainsFunc(l.names, func(n string) bool {
		return name == n || strings.HasSuffix(name, "."+n)
	})
}

// run writes until ctx ends.
func (l *queryLog) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-l.lines:
			l.write(e)
		}
	}
}

func (l *queryLog) write(e logged) {
	message, rrtype := "query", ""
	if e.slow {
		message = "slow query"
	}
	if e.name != "" {
		rrtype = dns.Type(e.rrtype).String()
	}
	l.log.Info(message, zap.Stringer("client", e.client), zap.String("proto", e.proto), zap.String("name", e.name),
		zap.String("type", rrtype), zap.String("rcode", rcodeLabel(e.rcode)), zap.Int("answers", e.answers),
		zap.Int("size", e.size), zap.Duration("took", e.took))
}
