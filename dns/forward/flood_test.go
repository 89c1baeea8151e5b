package forward

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestAFloodOfRandomNamesEvictsNothingThatIsUsed has a client ask for names that
// nobody asks for twice, of which half do not exist, while others use a few. The
// caches hold a fraction of the flood.
func TestAFloodOfRandomNamesEvictsNothingThatIsUsed(t *testing.T) {
	s := newServer(t, func(_ string, q *dns.Msg) []*dns.Msg {
		if name := q.Question[0].Name; strings.HasPrefix(strings.ToLower(name), "missing") {
			return []*dns.Msg{reply1(q, dns.RcodeNameError, "example. 900 IN SOA ns.example. root.example. 1 2 3 4 900")}
		}
		return []*dns.Msg{reply1(q, 0, q.Question[0].Name+" 900 IN A 192.0.2.1")}
	})
	cfg := testConfig(s)
	cfg.AnswerBytes, cfg.NegativeBytes = 60<<10, 30<<10
	r := start(t, cfg)
	const used = 40
	flooded, again := 0, 0
	for round := range 30 {
		for i := range used {
			before := len(s.questions(""))
			ask(t, r, query(fmt.Sprintf("used%d.example", i), dns.TypeA), false)
			if round > 5 && len(s.questions("")) > before {
				again++
			}
		}
		var waits []chan []byte
		for i := range 400 {
			flooded++
			name := fmt.Sprintf("missing%d.example", flooded)
			if i%2 == 0 {
				name = fmt.Sprintf("once%d.example", flooded)
			}
			waits = append(waits, askAsync(t, r, query(name, dns.TypeA), client, false))
		}
		for _, w := range waits {
			wait(t, w)
		}
	}
	if again > used/2 {
		t.Errorf("what is used was asked for again %d times in %d questions", again, 24*used)
	}
	for name, part := range map[string]struct {
		bytes uint64
		limit int
	}{"answers": {second(size(r.now.Load().cache.answers)), cfg.AnswerBytes}, "negatives": {second(size(r.now.Load().cache.negatives)), cfg.NegativeBytes}} {
		if part.bytes > uint64(part.limit) {
			t.Errorf("%s take %d bytes of %d", name, part.bytes, part.limit)
		}
	}
}

func second(_ int, b uint64) uint64 { return b }
