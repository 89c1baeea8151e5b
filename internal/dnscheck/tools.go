package dnscheck

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// tool is one call of dig or kdig and what it must print.
type tool struct {
	id, rfc, says string
	only          Transport
	args          string // HOST and so on stand for names
	want, not     string // regular expressions, empty for nothing
}

// toolChecks are what users of dig and kdig see.
func toolChecks() []Check {
	var checks []Check
	for _, t := range []tool{
		{id: "dig", rfc: "1035", says: "an address", args: "dig HOST A", want: `status: NOERROR.*\n;; flags: qr aa rd;.*ANSWER: 1`},
		{id: "dig-nodata", rfc: "2308 2.2", says: "NODATA has the SOA", args: "dig HOST AAAA", want: `status: NOERROR(?s:.*)ANSWER: 0(?s:.*)\sIN\s+SOA\s`},
		{id: "dig-nxdomain", rfc: "2308 2.1", says: "NXDOMAIN has the SOA", args: "dig MISSING A", want: `status: NXDOMAIN(?s:.*)\sIN\s+SOA\s`},
		{id: "dig-cookie", rfc: "7873 5.3", says: "dig accepts the cookie", args: "dig +cookie=3132333435363738 HOST A", want: `status: NOERROR`, not: `bad\)|malformed|BADCOOKIE`},
		{id: "dig-nsid-subnet", rfc: "5001, 7871", says: "NSID and a client subnet", args: "dig +nsid +subnet=1.2.3.0/24 HOST A", want: `status: NOERROR.*\n;; flags: qr aa rd;.*ANSWER: 1`},
		{id: "dig-option", rfc: "6891 6.1.2", says: "an unknown option is not echoed", args: "dig +ednsopt=65001:6162 HOST A", want: `status: NOERROR`, not: `OPT=65001`},
		{id: "dig-flags", rfc: "6891 6.1.4", says: "an unknown EDNS flag is not copied", args: "dig +ednsflags=0x40 HOST A", want: `EDNS: version: 0, flags:; `},
		{id: "dig-dnssec", rfc: "3225", says: "DO is copied", args: "dig +dnssec HOST A", want: `EDNS: version: 0, flags: do; `},
		{id: "dig-edns-1", rfc: "6891 6.1.3", says: "version 1 is BADVERS", args: "dig +edns=1 +noednsnegotiation HOST A", want: `status: BADVERS(?s:.*)EDNS: version: 0,`},
		{id: "dig-edns-negotiation", rfc: "6891 6.1.3", says: "dig comes down from version 100", args: "dig +edns=100 +ednsnegotiation HOST A", want: `status: NOERROR(?s:.*)ANSWER: 1`},
		{id: "dig-opcode", rfc: "8906 3.1.3", says: "opcode 15 is NOTIMP", args: "dig +opcode=15 HOST A", want: `status: NOTIMP`},
		{id: "dig-z", rfc: "1035 4.1.1", says: "Z is not copied", args: "dig +zflag HOST A", want: `status: NOERROR`, not: `MBZ`},
		{id: "dig-chaos", rfc: "4892", says: "class CH: a reply", args: "dig CH TXT version.bind", want: `status: (REFUSED|NOERROR|NOTIMP|NXDOMAIN)`},
		{id: "dig-unknown-type", rfc: "3597", says: "an unknown type is NODATA", args: "dig HOST TYPE65280", want: `status: NOERROR(?s:.*)ANSWER: 0`},
		{id: "dig-https", rfc: "9460", says: "HTTPS is NODATA", args: "dig HOST HTTPS", want: `status: NOERROR(?s:.*)ANSWER: 0`},
		{id: "dig-header-only", rfc: "9619", says: "no question: no answer", args: "dig +header-only HOST A", not: `ANSWER: [1-9]`},
		{id: "dig-axfr", rfc: "5936", says: "a stranger's transfer fails", only: TCP, args: "dig APEX AXFR", want: `Transfer failed`},
		{id: "dig-big", rfc: "2181 9", says: "a large set is cut", only: UDP, args: "dig +noedns +ignore BIG A", want: `flags: qr aa tc rd;`},
		{id: "dig-big-retry", rfc: "7766 5", says: "dig gets a large set by TCP", only: UDP, args: "dig BIG A", want: `ANSWER: 200`},
		{id: "dig-service", rfc: "2782", says: "a service with its address", args: "dig SERVICE SRV", want: `ANSWER: 1(?s:.*)\sIN\s+SRV\s+0 \d+ \d+ (?s:.*)ADDITIONAL SECTION(?s:.*)\sIN\s+A\s`},
		{id: "kdig", rfc: "1035", says: "an address", args: "kdig HOST A", want: `status: NOERROR(?s:.*)Flags: qr aa rd; QUERY: 1; ANSWER: 1`},
		{id: "kdig-noedns", rfc: "6891 7", says: "no OPT where none was sent", args: "kdig +noedns HOST A", want: `status: NOERROR`, not: `EDNS PSEUDOSECTION`},
		{id: "kdig-edns-1", rfc: "6891 6.1.3", says: "version 1 is BADVERS", args: "kdig +edns=1 HOST A", want: `status: BADVERS|ext-rcode: BADVERS`},
		{id: "kdig-cookie", rfc: "7873", says: "kdig accepts the cookie", args: "kdig +cookie HOST A", want: `status: NOERROR`, not: `WARNING.*[Cc]ookie`},
		{id: "kdig-padding", rfc: "7830", says: "padding", args: "kdig +padding=128 HOST A", want: `status: NOERROR`},
		{id: "kdig-keepopen", rfc: "7766 6.2.1", says: "two queries on one connection", only: TCP, args: "kdig +keepopen HOST A SERVICE SRV", want: `\sIN\s+A\s(?s:.*)\sIN\s+SRV\s`},
		{id: "kdig-subnet", rfc: "7871", says: "a client subnet", args: "kdig +subnet=2001:db8::/32 HOST A", want: `status: NOERROR`},
		{id: "kdig-case", rfc: "4343", says: "the letter case comes back", args: "kdig +noidn MIXED A", want: `;; MIXED\s(?s:.*)ANSWER: 1|ANSWER: 1(?s:.*);; MIXED\s`},
	} {
		checks = append(checks, t.check())
	}
	return checks
}

func (t tool) check() Check {
	program, _, _ := strings.Cut(t.args, " ")
	return Check{ID: t.id, RFC: t.rfc, Says: program + ": " + t.says, only: t.only, session: t.run}
}

// fill puts the names of p into text.
func fill(p *Peer, text string) string {
	n := p.Names
	return strings.NewReplacer("HOST", n.Host, "MISSING", n.Missing, "SERVICE", n.Service, "BIG", n.Big, "APEX", n.Apex, "MIXED", mixed(n.Host)).Replace(text)
}

func (t tool) run(p *Peer, over Transport) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	words := strings.Fields(fill(p, t.args))
	args := []string{"@" + p.Addr.Addr().String(), "-p", fmt.Sprint(p.Addr.Port())}
	if over == TCP {
		args = append(args, "+tcp")
	}
	args = append(args, fmt.Sprintf("+timeout=%d", patience/time.Second))
	out, err := exec.CommandContext(ctx, words[0], append(args, words[1:]...)...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	for _, e := range []struct {
		pattern string
		want    bool
	}{{t.want, true}, {t.not, false}} {
		if e.pattern == "" {
			continue
		}
		re, err := regexp.Compile(strings.ReplaceAll(fill(p, e.pattern), ".marathon.", `\.marathon\.`))
		if err != nil {
			return err
		}
		if re.Match(out) != e.want {
			return fmt.Errorf("%q in the output is %v:\n%s", e.pattern, !e.want, out)
		}
	}
	return nil
}
