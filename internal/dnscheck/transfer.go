package dnscheck

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

func transferChecks() []Check {
	noData := all(noAnswers, func(_ []byte, r *Message) error {
		if r.rcode() == noError && r.Flags&tc == 0 {
			return errors.New("an empty success")
		}
		return nil
	})
	return []Check{
		{ID: "axfr-refused", RFC: "5936 2.2.1", Says: "a stranger gets no zone", only: TCP, query: apex(typeAXFR), want: all(rcode(refused, notAuth), noAnswers)},
		{ID: "axfr-udp", RFC: "5936 4.2", Says: "no zone over UDP", only: UDP, query: apex(typeAXFR), want: either(noData, rcode(formErr, refused, notImp))},
		{ID: "ixfr-refused", RFC: "1995 2", Says: "a stranger gets no zone by IXFR", only: TCP, want: either(all(rcode(refused, notAuth, notImp), noAnswers), loneSOA),
			query: ixfr},
		{ID: "axfr-below", RFC: "5936 2.2.1", Says: "a zone that is a name below the apex is not transferred", only: TCP, query: host(typeAXFR), want: all(rcode(refused, notAuth, nxDomain), noAnswers)},
		{ID: "axfr", RFC: "5936 2.2", Says: "a friend gets the whole zone between two equal SOA records", only: TCP, session: wholeZone(apex(typeAXFR))},
		{ID: "axfr-aa", RFC: "5936 2.2.1", Says: "a transfer has AA set", only: TCP, session: transferAA},
		{ID: "axfr-edns", RFC: "5936 2.2.5", Says: "a friend gets the zone with EDNS too", only: TCP, session: wholeZone(apex(typeAXFR, edns(1232)))},
		{ID: "axfr-case", RFC: "4343", Says: "a friend gets the zone asked for in capitals", only: TCP, session: wholeZone(func(n Names) []byte { return ask(bytes.ToUpper(wire(n.Apex)), typeAXFR) })},
		{ID: "ixfr", RFC: "1995 4", Says: "IXFR of an old serial: the whole zone, or a refusal", only: TCP, session: func(p *Peer, over Transport) error {
			if err := wholeZone(ixfr)(p, over); err != nil && !errors.Is(err, errRefused) {
				return err
			}
			return nil
		}},
		{ID: "axfr-then-query", RFC: "5936 4.1", Says: "the connection of a transfer takes further queries", only: TCP, session: transferThenQuery},
	}
}

func loneSOA(_ []byte, r *Message) error {
	if len(r.Answer) != 1 || r.Answer[0].Type != typeSOA {
		return fmt.Errorf("%d answers", len(r.Answer))
	}
	return nil
}

// ixfr asks for what has changed since serial 0.
func ixfr(n Names) []byte {
	soa := append([]byte{0, 0}, make([]byte, 20)...)
	return ask(wire(n.Apex), typeIXFR, record(2, wire(n.Apex), typeSOA, classIN, 0, soa...))
}

var errRefused = errors.New("refused")

// friendly runs a session on a connection from the friend's address.
func friendly(p *Peer, do func(net.Conn) error) error {
	d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Friend, 0))}
	conn, err := d.Dial("tcp", p.Addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return do(conn)
}

func wholeZone(query func(Names) []byte) func(*Peer, Transport) error {
	return func(p *Peer, _ Transport) error {
		return friendly(p, func(conn net.Conn) error {
			q := query(p.Names)
			if _, err := conn.Write(frame(q)); err != nil {
				return err
			}
			records, err := Transfer(conn, q)
			if err != nil {
				return err
			}
			return checkZone(p.Names, records)
		})
	}
}

// Transfer reads the answer to a query for a zone from conn: the records with
// both SOA records.
func Transfer(conn net.Conn, query []byte) ([]Record, error) {
	var out []Record
	for first := true; ; first = false {
		raw, err := readFrame(conn)
		if err != nil {
			return nil, err
		}
		r, err := Parse(raw)
		if err != nil {
			return nil, err
		}
		if err := sameExchange(query, r); err != nil {
			return nil, err
		}
		switch {
		case r.rcode() != noError:
			return nil, fmt.Errorf("rcode %d: %w", r.rcode(), errRefused)
		case first && len(r.Question) != 1 || len(r.Answer) == 0:
			return nil, fmt.Errorf("message %x", raw[:headerSize])
		}
		out = append(out, r.Answer...)
		if last := out[len(out)-1]; len(out) > 1 && last.Type == typeSOA {
			return out, nil
		}
	}
}

// checkZone checks that a zone is between two equal SOA records, has each
// record once, and has what the names say.
func checkZone(n Names, records []Record) error {
	first, last := records[0], records[len(records)-1]
	if first.Type != typeSOA || !sameName(first.Owner, wire(n.Apex)) || !sameName(last.Owner, wire(n.Apex)) {
		return fmt.Errorf("it is between records of %s and %s", text(first.Owner), text(last.Owner))
	}
	serial, _, _ := soaFields(first)
	if again, _, _ := soaFields(last); again != serial {
		return fmt.Errorf("serial %d at the start, %d at the end", serial, again)
	}
	found, seen := map[string]int{}, map[string]bool{}
	for _, r := range records[:len(records)-1] {
		if !within(r.Owner, wire(n.Apex)) {
			return fmt.Errorf("%s is not in the zone", text(r.Owner))
		}
		found[fmt.Sprint(text(lower(r.Owner)), r.Type)]++
		whole := fmt.Sprintf("%x %d %x", lower(r.Owner), r.Type, r.Data)
		if seen[whole] && r.Type != typeSRV { // whose targets may be compressed alike
			return fmt.Errorf("%s is there twice", text(r.Owner))
		}
		seen[whole] = true
	}
	for _, want := range []struct {
		name  string
		qtype uint16
		n     int
	}{{n.Host, typeA, 1}, {n.Service, typeSRV, 1}, {n.Big, typeA, 200}, {n.BigService, typeSRV, 200}} {
		if got := found[fmt.Sprint(want.name, want.qtype)]; got < want.n {
			return fmt.Errorf("%d records of %s type %d, not %d", got, want.name, want.qtype, want.n)
		}
	}
	return nil
}

func transferAA(p *Peer, _ Transport) error {
	return friendly(p, func(conn net.Conn) error {
		q := apex(typeAXFR)(p.Names)
		if _, err := conn.Write(frame(q)); err != nil {
			return err
		}
		return reply(conn, q, bits(aa, tc))
	})
}

func transferThenQuery(p *Peer, _ Transport) error {
	return friendly(p, func(conn net.Conn) error {
		q := apex(typeAXFR)(p.Names)
		if _, err := conn.Write(frame(q)); err != nil {
			return err
		}
		if _, err := Transfer(conn, q); err != nil {
			return err
		}
		query := host(typeA, id(7))(p.Names)
		if _, err := conn.Write(frame(query)); err != nil {
			return err
		}
		return reply(conn, query, isAnswer)
	})
}
