package dnscheck

import (
	"bytes"
	"fmt"
)

func ednsChecks() []Check {
	return []Check{
		{ID: "opt-none", RFC: "6891 7", Says: "no OPT in the query: none in the reply", query: host(typeA), want: noOPT},
		{ID: "opt-none-nxdomain", RFC: "6891 7", Says: "no OPT in the query: none with NXDOMAIN", query: missing(typeA), want: noOPT},
		{ID: "opt", RFC: "6891 6.1.1", Says: "OPT in the query: exactly one in the reply", query: host(typeA, edns(1232)), want: isAnswerOPT},
		{ID: "opt-nxdomain", RFC: "6891 6.1.1", Says: "OPT with NXDOMAIN", query: missing(typeA, edns(1232)), want: all(isNXDomain, hasOPT(0))},
		{ID: "opt-nodata", RFC: "6891 6.1.1", Says: "OPT with NODATA", query: host(typeAAAA, edns(1232)), want: all(isNoData, hasOPT(0))},
		{ID: "opt-soa", RFC: "6891 6.1.1", Says: "OPT with the SOA", query: apex(typeSOA, edns(1232)), want: all(answers(typeSOA, 1), hasOPT(0))},
		{ID: "opt-refused", RFC: "6891 6.1.1", Says: "OPT with a refusal", want: all(rcode(refused), hasOPT(0)),
			query: func(Names) []byte { return ask(wire("www.example.org."), typeA, edns(1232)) }},
		{ID: "opt-any", RFC: "6891 6.1.1", Says: "OPT with ANY", query: host(typeANY, edns(1232)), want: hasOPT(0)},
		{ID: "opt-do", RFC: "3225 3", Says: "DO is copied", query: host(typeA, ednsTTL(1232, ednsDO)), want: all(isAnswer, hasOPT(ednsDO))},
		{ID: "opt-do-nxdomain", RFC: "3225 3", Says: "DO is copied with NXDOMAIN", query: missing(typeA, ednsTTL(1232, ednsDO)), want: all(isNXDomain, hasOPT(ednsDO))},
		{ID: "opt-flags", RFC: "6891 6.1.4, 8906 3.2.2", Says: "unknown EDNS flags are ignored and not copied", query: host(typeA, ednsTTL(1232, 0x7fff)), want: isAnswerOPT},
		{ID: "opt-flag-one", RFC: "6891 6.1.4", Says: "one unknown EDNS flag is not copied", query: host(typeA, ednsTTL(1232, 0x40)), want: isAnswerOPT},
		{ID: "opt-rcode", RFC: "6891 6.1.3", Says: "an extended rcode in a query is ignored", query: host(typeA, ednsTTL(1232, 0x55<<24)), want: isAnswerOPT},
		{ID: "opt-0", RFC: "6891 6.2.3", Says: "a size of 0 counts as 512", query: host(typeA, edns(0)), want: all(isAnswerOPT, atMost(512))},
		{ID: "opt-1", RFC: "6891 6.2.3", Says: "a size of 1 counts as 512", query: host(typeA, edns(1)), want: all(isAnswerOPT, atMost(512))},
		{ID: "opt-511", RFC: "6891 6.2.3", Says: "a size of 511 counts as 512", query: host(typeA, edns(511)), want: all(isAnswerOPT, atMost(512))},
		{ID: "opt-512", RFC: "6891 6.2.3", Says: "a size of 512", query: host(typeA, edns(512)), want: isAnswerOPT},
		{ID: "opt-65535", RFC: "6891 6.2.3", Says: "a size of 65535", query: host(typeA, edns(65535)), want: isAnswerOPT},
		{ID: "opt-first", RFC: "6891 6.1.1", Says: "OPT may be followed by other additional records", want: isAnswerOPT,
			query: host(typeA, edns(1232), record(3, wire("x."), typeA, classIN, 0, 1, 2, 3, 4))},
		{ID: "opt-last", RFC: "6891 6.1.1", Says: "OPT may follow other additional records", want: isAnswerOPT,
			query: host(typeA, record(3, wire("x."), typeA, classIN, 0, 1, 2, 3, 4), edns(1232))},
	}
}

// isBadVers wants BADVERS in version 0, without data and without the option.
func isBadVers(query []byte, r *Message) error {
	return all(rcode(badVers), noAnswers, hasOPT(0), without(65001))(query, r)
}

func ednsErrorChecks() []Check {
	return []Check{
		{ID: "version-1", RFC: "6891 6.1.3", Says: "EDNS version 1 is BADVERS, answered in version 0", query: host(typeA, ednsTTL(1232, ednsVersion)), want: isBadVers},
		{ID: "version-255", RFC: "6891 6.1.3", Says: "EDNS version 255 is BADVERS", query: host(typeA, ednsTTL(1232, 255*ednsVersion)), want: isBadVers},
		{ID: "version-1-option", RFC: "6891 6.1.3, 8906 3.2.6", Says: "an option of version 1 is not echoed", want: isBadVers,
			query: host(typeA, ednsTTL(1232, ednsVersion, option(65001, 'a', 'b')))},
		{ID: "version-1-flags", RFC: "8906 3.2.5", Says: "unknown flags with version 1 are not copied", query: host(typeA, ednsTTL(1232, ednsVersion|0x40)), want: isBadVers},
		{ID: "version-1-missing", RFC: "6891 6.1.3", Says: "version 1 is BADVERS for a missing name too", query: missing(typeA, ednsTTL(1232, ednsVersion)), want: isBadVers},
		{ID: "opt-two", RFC: "6891 6.1.1", Says: "two OPT records are FORMERR", query: host(typeA, edns(1232), edns(1232)), want: all(rcode(formErr), noAnswers)},
		{ID: "opt-three", RFC: "6891 6.1.1", Says: "three OPT records are FORMERR", query: host(typeA, edns(1232), edns(512), edns(0)), want: all(rcode(formErr), noAnswers)},
		{ID: "opt-owner", RFC: "6891 6.1.2", Says: "OPT of a name that is not the root: FORMERR, or as if it were", silence: maybeSilent,
			query: host(typeA, record(3, wire("x."), typeOPT, 1232, 0)), want: either(rcode(formErr), isAnswer)},
		{ID: "opt-past", RFC: "6891 6.1.2", Says: "an option that runs past the data is FORMERR or ignored", silence: maybeSilent,
			query: host(typeA, record(3, []byte{0}, typeOPT, 1232, 0, 0xfd, 0xe9, 0, 9, 1)), want: all(rcode(formErr), noAnswers)},
		{ID: "opt-cut", RFC: "6891 6.1.2", Says: "an option that is cut is FORMERR or ignored", silence: maybeSilent,
			query: host(typeA, record(3, []byte{0}, typeOPT, 1232, 0, 0xfd, 0xe9, 0)), want: all(rcode(formErr), noAnswers)},
		{ID: "opt-answer", RFC: "6891 6.1.1", Says: "OPT in the answer section: FORMERR, or no harm", silence: maybeSilent,
			query: host(typeA, record(1, []byte{0}, typeOPT, 1232, 0)), want: either(rcode(formErr), isAnswer)},
	}
}

// ignored wants a normal answer that does not have the option.
func ignored(code uint16) want { return all(isAnswerOPT, without(code)) }

func optionChecks() []Check {
	unknown := func(id, says string, options ...[]byte) Check {
		return Check{ID: id, RFC: "6891 6.1.2, 8906 3.2.3", Says: says, query: host(typeA, edns(1232, options...)), want: ignored(be16(options[0]))}
	}
	var many [][]byte
	for i := range uint16(40) {
		many = append(many, option(65100+i, byte(i)))
	}
	return []Check{
		unknown("option", "an unknown option is ignored", option(65001, 'a', 'b')),
		unknown("option-empty", "an unknown option without data is ignored", option(65001)),
		unknown("option-large", "an unknown option of 400 octets is ignored", option(65001, make([]byte, 400)...)),
		unknown("option-many", "forty unknown options are ignored", many...),
		unknown("option-twice", "an unknown option twice is ignored", option(65001, 1), option(65001, 2)),
		unknown("option-0", "option 0, which is reserved, is ignored", option(0, 1)),
		unknown("option-65535", "option 65535, which is reserved, is ignored", option(65535, 1)),
		unknown("option-update-lease", "the option of DNS service discovery is ignored", option(2, 0, 0, 14, 16)),
		{ID: "option-nxdomain", RFC: "8906 3.2.3", Says: "an unknown option with a missing name", query: missing(typeA, edns(1232, option(65001, 1))), want: all(isNXDomain, hasOPT(0), without(65001))},
		{ID: "nsid", RFC: "5001 2.1", Says: "NSID: a normal answer", query: host(typeA, edns(1232, option(3))), want: isAnswerOPT},
		{ID: "client-subnet", RFC: "7871 7.2", Says: "a client subnet: a normal answer; if returned, of scope 0", want: all(isAnswerOPT, subnetScope),
			query: host(typeA, edns(1232, option(8, 0, 1, 24, 0, 1, 2, 3)))},
		{ID: "client-subnet-6", RFC: "7871 7.2", Says: "an IPv6 client subnet: a normal answer", want: all(isAnswerOPT, subnetScope),
			query: host(typeA, edns(1232, option(8, 0, 2, 32, 0, 0x20, 1, 0xd, 0xb8)))},
		{ID: "padding", RFC: "7830 3", Says: "padding: a normal answer", query: host(typeA, edns(1232, option(12, 0, 0, 0, 0))), want: isAnswerOPT},
		{ID: "expire", RFC: "7314", Says: "EXPIRE with an ordinary query is ignored", query: host(typeA, edns(1232, option(9))), want: isAnswerOPT},
		{ID: "chain", RFC: "7901", Says: "CHAIN: a normal answer", query: host(typeA, edns(1232, option(13, 0))), want: isAnswerOPT},
		{ID: "understood", RFC: "6975 7", Says: "DAU, DHU and N3U are ignored", query: host(typeA, edns(1232, option(5, 8), option(6, 2), option(7, 1))), want: ignored(5)},
		{ID: "extended-error", RFC: "8914 2", Says: "an extended error in a query is ignored", query: host(typeA, edns(1232, option(15, 0, 1))), want: isAnswerOPT},
		{ID: "key-tag", RFC: "8145 4.1", Says: "key tags are ignored", query: host(typeA, edns(1232, option(14, 0x4f, 0x66))), want: ignored(14)},
		{ID: "options-known", RFC: "6891 6.1.2", Says: "NSID, subnet, padding and chain together", want: isAnswerOPT,
			query: host(typeA, edns(1232, option(3), option(8, 0, 1, 24, 0, 1, 2, 3), option(12, 0, 0), option(13, 0)))},
		{ID: "keepalive-udp", RFC: "7828 3.2.1", Says: "TCP keepalive over UDP is ignored", only: UDP, query: host(typeA, edns(1232, option(11))),
			want: all(either(isAnswerOPT, isFormErr), without(11))},
		{ID: "keepalive-udp-data", RFC: "7828 3.2.1", Says: "TCP keepalive with a timeout over UDP is ignored", only: UDP, query: host(typeA, edns(1232, option(11, 0, 100))),
			want: all(either(isAnswerOPT, rcode(formErr)), without(11))},
		{ID: "keepalive", RFC: "7828 3.3.2", Says: "TCP keepalive: a normal answer; if returned, of two octets", only: TCP, query: host(typeA, edns(1232, option(11))),
			want: all(isAnswerOPT, keepaliveShape)},
		{ID: "keepalive-none", RFC: "7828 3.3.2", Says: "no TCP keepalive where nobody said EDNS", only: TCP, query: host(typeA), want: all(isAnswer, noOPT)},
		{ID: "keepalive-data", RFC: "7828 3.2.1", Says: "TCP keepalive with a timeout in a query: an answer or FORMERR", only: TCP, query: host(typeA, edns(1232, option(11, 0, 100))),
			want: either(isAnswerOPT, rcode(formErr))},
	}
}

func subnetScope(_ []byte, r *Message) error {
	if data, ok := r.option(8); ok && (len(data) < 4 || data[3] != 0) {
		return fmt.Errorf("client subnet %x", data)
	}
	return nil
}

func keepaliveShape(_ []byte, r *Message) error {
	if data, ok := r.option(11); ok && len(data) != 2 {
		return fmt.Errorf("TCP keepalive %x", data)
	}
	return nil
}

const optCookie = 10

// cookieShape wants a returned cookie to start with client and to be of an
// allowed length.
func cookieShape(client string) want {
	return func(_ []byte, r *Message) error {
		data, ok := r.option(optCookie)
		if ok && (!bytes.HasPrefix(data, []byte(client)) || len(data) < 16 || len(data) > 40) {
			return fmt.Errorf("cookie %x for %x", data, client)
		}
		return nil
	}
}

func cookieChecks() []Check {
	const client = "abcdefgh"
	withCookie := func(data string) func(Names) []byte {
		return host(typeA, edns(1232, option(optCookie, []byte(data)...)))
	}
	malformed := func(n int) Check {
		return Check{ID: fmt.Sprint("cookie-length-", n), RFC: "7873 5.2.2", Says: fmt.Sprintf("a cookie of %d octets is FORMERR, or ignored", n),
			query: withCookie(fmt.Sprintf("%0*d", n, 0)[:n]), want: either(all(rcode(formErr), noAnswers), ignored(optCookie))}
	}
	return []Check{
		{ID: "cookie", RFC: "7873 5.2.3", Says: "a client cookie: a normal answer, and a server cookie of 8 to 32 octets if any", query: withCookie(client), want: all(isAnswerOPT, cookieShape(client))},
		{ID: "cookie-nxdomain", RFC: "7873 5.2.3", Says: "a client cookie with a missing name", want: all(isNXDomain, hasOPT(0), cookieShape(client)),
			query: missing(typeA, edns(1232, option(optCookie, []byte(client)...)))},
		{ID: "cookie-wrong", RFC: "7873 5.2.4", Says: "a server cookie that is not ours: an answer or BADCOOKIE", query: withCookie(client + "0123456789abcdef"),
			want: all(either(isAnswerOPT, all(rcode(badCookie), noAnswers)), cookieShape(client))},
		{ID: "cookie-foreign", RFC: "9018 4", Says: "a server cookie of 32 octets: an answer or BADCOOKIE", query: withCookie(client + "0123456789abcdef0123456789abcdef"),
			want: all(either(isAnswerOPT, all(rcode(badCookie), noAnswers)), cookieShape(client))},
		malformed(1), malformed(7), malformed(9), malformed(15), malformed(41), malformed(100),
		{ID: "cookie-empty", RFC: "7873 5.2.2", Says: "an empty cookie is FORMERR, or ignored", query: withCookie(""),
			want: either(all(rcode(formErr), noAnswers), ignored(optCookie))},
		{ID: "cookie-returned", RFC: "7873 5.2.5", Says: "the server takes the cookie that it gave", session: cookieReturned},
		{ID: "cookie-other-client", RFC: "9018 4.4", Says: "another client cookie gets another server cookie", session: cookieOther},
	}
}

// giveCookie asks with a cookie and returns the one in the reply, nil for none.
func giveCookie(p *Peer, over Transport, cookie []byte) ([]byte, error) {
	query := host(typeA, edns(1232, option(optCookie, cookie...)))(p.Names)
	raw, err := exchange(p, over, query, answered)
	if err != nil {
		return nil, err
	}
	r, err := Parse(raw)
	if err == nil {
		err = isAnswerOPT(query, r)
	}
	if err != nil {
		return nil, err
	}
	data, _ := r.option(optCookie)
	return data, nil
}

func cookieReturned(p *Peer, over Transport) error {
	cookie, err := giveCookie(p, over, []byte("abcdefgh"))
	if err == nil && cookie != nil {
		cookie, err = giveCookie(p, over, cookie)
	}
	if err == nil && cookie != nil {
		err = cookieShape("abcdefgh")(nil, &Message{Additional: []Record{{Type: typeOPT, Data: option(optCookie, cookie...)}}})
	}
	return err
}

func cookieOther(p *Peer, over Transport) error {
	one, err := giveCookie(p, over, []byte("abcdefgh"))
	if err != nil {
		return err
	}
	other, err := giveCookie(p, over, []byte("ABCDEFGH"))
	if err == nil && one != nil && bytes.Equal(one[8:], other[8:]) {
		err = fmt.Errorf("server cookie %x for two clients", one[8:])
	}
	return err
}
