package vip

import (
	"crypto/sha1"
	"encoding/binary"
	"math/big"
	"net/netip"
)

// pool is the range of addresses that names of one family share. The address a
// name gets if nobody else wants it, its home, is the one DC/OS computes.
type pool struct {
	first, last netip.Addr
	hash        func(name string) []byte
	base, span  *big.Int // first, and last - first, so that last is nobody's home
}

func newPool(first, last netip.Addr, hash func(string) []byte) pool {
	base, end := number(first), number(last)
	return pool{first: first, last: last, hash: hash, base: base, span: end.Sub(end, base)}
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

// home returns first + hash(name) mod span.
func (p *pool) home(name string) netip.Addr {
	h := new(big.Int).SetBytes(p.hash(name))
	h.Mod(h, p.span).Add(h, p.base)
	a, _ := netip.AddrFromSlice(h.FillBytes(make([]byte, p.first.BitLen()/8)))
	return a
}

// next returns the address to try after a: behind the last comes the first.
func (p *pool) next(a netip.Addr) netip.Addr {
	if a == p.last {
		return p.first
	}
	return a.Next()
}

// hash4 is what DC/OS places IPv4 names by: Erlang's phash2 of the bytes.
func hash4(name string) []byte { return binary.BigEndian.AppendUint32(nil, phash2(name)) }

// hash6 is what DC/OS places IPv6 names by.
func hash6(name string) []byte {
	sum := sha1.Sum([]byte(name))
	return sum[:]
}

// phash2 returns the 32 bits that erlang:phash2 has for a binary before it
// reduces them: Bob Jenkins' second lookup hash over little-endian words.
func phash2(s string) uint32 {
	m := mixer{a: 0x9e3779b9, b: 0x9e3779b9, c: 0x08d12e65}
	if s == "" {
		return m.c
	}
	size := len(s)
	for ; len(s) >= 12; s = s[12:] {
		m.add([]byte(s[:12]))
	}
	// The length takes the lowest byte of the last word.
	var tail [12]byte
	copy(tail[:8], s)
	if len(s) > 8 {
		copy(tail[9:], s[8:])
	}
	m.c += uint32(size)
	m.add(tail[:])
	return m.c
}

type mixer struct{ a, b, c uint32 }

// add takes in 12 bytes.
func (m *mixer) add(block []byte) {
	a := m.a + binary.LittleEndian.Uint32(block)
	b := m.b + binary.LittleEndian.Uint32(block[4:])
	c := m.c + binary.LittleEndian.Uint32(block[8:])
	a = (a - b - c) ^ c>>13
	b = (b - c - a) ^ a<<8
	c = (c - a - b) ^ b>>13
	a = (a - b - c) ^ c>>12
	b = (b - c - a) ^ a<<16
	c = (c - a - b) ^ b>>5
	a = (a - b - c) ^ c>>3
	b = (b - c - a) ^ a<<10
	c = (c - a - b) ^ b>>15
	m.a, m.b, m.c = a, b, c
}
