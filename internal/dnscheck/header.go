package dnscheck

import "fmt"

func headerChecks() []Check {
	return []Check{
		{ID: "answer", RFC: "1034 4.3.1", Says: "an address is answered with QR, AA and one A record of the name asked", query: host(typeA), want: isAnswer},
		{ID: "id-0", RFC: "1035 4.1.1", Says: "message id 0 comes back", query: host(typeA, id(0)), want: isAnswer},
		{ID: "id-65535", RFC: "1035 4.1.1", Says: "message id 65535 comes back", query: host(typeA, id(65535)), want: isAnswer},
		{ID: "rd-set", RFC: "1035 4.1.1", Says: "RD set is copied", query: host(typeA), want: all(isAnswer, bits(rd, 0))},
		{ID: "rd-clear", RFC: "1035 4.1.1", Says: "RD clear is copied", query: host(typeA, unset(rd)), want: all(isAnswer, bits(0, rd))},
		{ID: "rd-negative", RFC: "1035 4.1.1", Says: "RD is copied into negative answers", query: missing(typeA), want: all(isNXDomain, bits(rd, 0))},
		{ID: "z", RFC: "1035 4.1.1, 8906 3.1.4", Says: "the reserved bit is ignored and not copied", query: host(typeA, set(z)), want: all(isAnswer, bits(0, z))},
		{ID: "ad", RFC: "6840 5.7, 8906", Says: "AD in a query: a normal answer, AD clear for data that is not signed", query: host(typeA, set(ad)), want: all(isAnswer, bits(0, ad))},
		{ID: "cd", RFC: "4035 3.1.6, 8906", Says: "CD in a query: a normal answer", query: host(typeA, set(cd)), want: all(isAnswer, bits(0, ad))},
		{ID: "aa-in-query", RFC: "1035 4.1.1", Says: "AA in a query is ignored", query: missing(typeA, set(aa)), want: isNXDomain},
		{ID: "tc-in-query", RFC: "1035 4.1.1", Says: "TC in a query is ignored", query: host(typeA, set(tc)), want: isAnswer},
		{ID: "ra-in-query", RFC: "1035 4.1.1", Says: "RA in a query is ignored", query: host(typeA, set(ra)), want: isAnswer},
		{ID: "all-bits", RFC: "1035 4.1.1", Says: "all bits but QR and opcode at once: a normal answer", query: host(typeA, set(aa|tc|rd|ra|z|ad|cd)), want: all(isAnswer, bits(rd, z|ad))},
		{ID: "counts", RFC: "1035 4.1.1", Says: "the reply holds as many records as its header says", query: big(edns(1232)), want: func([]byte, *Message) error { return nil }},
	}
}

// stranger is what an opcode that is not for us may come to.
var stranger = all(rcode(formErr, notImp, refused, notAuth), noAnswers)

func opcodeChecks() []Check {
	checks := []Check{
		{ID: "opcode-notify", RFC: "1996 3.10, 8906", Says: "NOTIFY from a stranger is not accepted", query: apex(typeSOA, opcode(4)), want: stranger},
		{ID: "opcode-update", RFC: "2136 3.3, 8906", Says: "UPDATE from a stranger is not accepted", query: apex(typeSOA, opcode(5)), want: stranger},
		{ID: "opcode-update-record", RFC: "2136 3.3", Says: "UPDATE that adds a record is not accepted", want: stranger,
			query: func(n Names) []byte {
				return ask(wire(n.Apex), typeSOA, opcode(5), record(2, wire(n.Host), typeA, classIN, 60, 9, 9, 9, 9))
			}},
	}
	for _, code := range []uint16{1, 2, 3, 7, 8, 14, 15} {
		checks = append(checks, Check{
			ID: fmt.Sprint("opcode-", code), RFC: "1035 4.1.1, 8906 3.1.3", Says: fmt.Sprintf("opcode %d is NOTIMP", code),
			query: host(typeA, opcode(code)), want: all(rcode(notImp), noRecords),
		})
	}
	return checks
}

// noINData wants a reply that does not pass off IN data as that of another class.
func noINData(_ []byte, r *Message) error {
	for _, a := range r.Answer {
		if a.Class == classIN {
			return fmt.Errorf("an IN record")
		}
	}
	if r.rcode() == noError && r.Flags&aa != 0 && len(r.Answer) == 0 {
		return fmt.Errorf("an authoritative NODATA for a class that is not served")
	}
	return nil
}

func classChecks() []Check {
	checks := []Check{
		{ID: "class-ch-version", RFC: "4892, 8906", Says: "version.bind in class CH: a reply without IN data", want: noINData,
			query: func(Names) []byte { return ask(wire("version.bind."), typeTXT, class(3)) }},
		{ID: "class-ch-id", RFC: "4892, 8906", Says: "id.server in class CH: a reply without IN data", want: noINData,
			query: func(Names) []byte { return ask(wire("id.server."), typeTXT, class(3)) }},
	}
	for _, c := range []struct {
		name string
		code uint16
	}{{"hs", 4}, {"none", 254}, {"0", 0}, {"65535", 65535}} {
		checks = append(checks, Check{
			ID: "class-" + c.name, RFC: "1035 3.2.4", Says: fmt.Sprintf("class %d for a name of class IN: no IN data", c.code),
			query: host(typeA, class(c.code)), want: noINData,
		})
	}
	return append(checks, Check{
		ID: "class-any", RFC: "1035 3.2.5", Says: "class ANY: the data, or a refusal", query: host(typeA, class(255)),
		want: either(answers(typeA, 1), all(rcode(refused, notImp, formErr), noAnswers)),
	})
}

func typeChecks() []Check {
	var checks []Check
	for _, t := range []struct {
		code uint16
		rfc  string
		what string
	}{
		{typeAAAA, "2308 2.2", "AAAA"}, {typeNS, "2308 2.2", "NS"}, {typePTR, "2308 2.2", "PTR"}, {typeTXT, "2308 2.2", "TXT"},
		{5, "1034 3.6.2", "CNAME"}, {15, "2308 2.2", "MX"}, {typeSRV, "2782", "SRV"}, {typeSOA, "2308 2.2", "SOA below the apex"},
		{35, "3403", "NAPTR"}, {typeDS, "4035 3.1.4.1", "DS"}, {46, "4035", "RRSIG"}, {47, "4035", "NSEC"}, {48, "4035", "DNSKEY"},
		{50, "5155", "NSEC3"}, {52, "6698", "TLSA"}, {64, "9460", "SVCB"}, {typeHTTPS, "9460", "HTTPS, whose number is an A"},
		{97, "3597 2", "a type whose number is an a"}, {99, "7208", "SPF"}, {257, "8659", "CAA"},
		{16705, "3597 2", "a type whose octets are AA"}, {24929, "3597 2", "a type whose octets are aa"},
		{65280, "8906 3.1.2, 3597", "a type for private use"}, {65534, "8906 3.1.2, 3597", "another type for private use"},
	} {
		checks = append(checks, Check{
			ID: fmt.Sprint("type-", t.code), RFC: t.rfc, Says: t.what + " of a name that has only an address is NODATA, with the type echoed",
			query: host(t.code), want: isNoData,
		})
	}
	return checks
}
