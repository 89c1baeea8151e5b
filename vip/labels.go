package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxWeight bounds VIP_n_WEIGHT. A dataplane spends a slot on each unit of
// weight, so it is enough for a share of a tenth of a percent and no more.
const maxWeight = 1000

// label is a VIP label that could be read.
type label struct {
	key, value string // as written
	left       string // the value's left side, as written
	addr       netip.Addr
	name       string // folded; empty for a VIP given by address
	port       uint16
	weight     uint16
	options    *Options // nil for nearly every label
}

// parseLabel reads the value of a VIP label, "left:port" split at the last
// colon. The left side is an address if it is one to the letter, in brackets
// or not, else a name; one slash before it means nothing. What is so nearly an
// address that it cannot be meant as a name is an error.
func parseLabel(value string) (label, error) {
	l := label{value: value, weight: 1}
	i := strings.LastIndexByte(value, ':')
	if i < 0 {
		return l, errors.New("no :port at the end")
	}
	// Atoi takes "080" and "+80" as DC/OS does.
	port, err := strconv.Atoi(value[i+1:])
	if err != nil || port < 1 || port > 65535 {
		return l, fmt.Errorf("port %q is not a number within 1 to 65535", value[i+1:])
	}
	l.left, l.port = value[:i], uint16(port)
	if l.addr, err = parseAddr(strings.TrimPrefix(l.left, "/")); err != nil || l.addr.IsValid() {
		return l, err
	}
	if l.name = FoldName(l.left); l.name == "" {
		return l, fmt.Errorf("name %q has no ASCII letter or digit", l.left)
	}
	return l, nil
}

// parseAddr returns the address that text is, the zero Addr if text is a name,
// and an error if it is neither.
func parseAddr(text string) (netip.Addr, error) {
	inner, bracket := strings.CutPrefix(text, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if bracket || closed {
		a, err := netip.ParseAddr(inner)
		if !bracket || !closed || err != nil || !a.Is6() {
			return netip.Addr{}, fmt.Errorf("%q is not an IPv6 address in brackets", text)
		}
		return usable(a)
	}
	if !strings.ContainsAny(text, ".:") {
		return netip.Addr{}, nil // most names; asking ParseAddr costs its error
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return usable(a)
	}
	return netip.Addr{}, nearAddr(text)
}

// usable refuses addresses that no connection can be made to.
func usable(a netip.Addr) (netip.Addr, error) {
	a = a.Unmap()
	switch {
	case a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("address %s has a zone, which means something on one machine only", a)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("address %s is not one of a single machine", a)
	}
	return a, nil
}

// nearAddr returns an error if text is what comes of mistyping an address. DC/OS
// serves these under names like 1.2.3.marathon, which nobody asks for.
func nearAddr(text string) error {
	before, _, slash := strings.Cut(text, "/")
	_, notAddr := netip.ParseAddr(before)
	switch {
	case slash && notAddr == nil:
		return fmt.Errorf("%q is a network, not an address", text)
	case strings.Contains(text, "://"):
		return fmt.Errorf("%q has a scheme, which only task labels like vip_port0 have", text)
	case strings.Contains(text, ".") && strings.Trim(text, ".0123456789") == "":
		return fmt.Errorf("%q is not an IPv4 address and too like one for a name", text)
	case strings.Count(text, ":") > 1 && strings.Trim(text, ":.0123456789abcdefABCDEF") == "":
		return fmt.Errorf("%q is not an IPv6 address and too like one for a name", text)
	}
	return nil
}

// parseWeight reads the value of a VIP_n_WEIGHT label.
func parseWeight(value string) (uint16, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > maxWeight {
		return 0, fmt.Errorf("weight is not a number within 0 to %d", maxWeight)
	}
	return uint16(n), nil
}

// parseKey reports whether a port label with this key is a VIP label or, where
// option is not empty, an option beside the VIP label base. What follows the
// prefix has no meaning: VIP_0, vip_1, VIP_<uuid> and even VIPER are in use.
func parseKey(key string) (base, option string, ok bool) {
	if !strings.HasPrefix(key, "VIP") && !strings.HasPrefix(key, "vip") {
		return "", "", false
	}
	if i := strings.LastIndexByte(key, '_'); i > 0 {
		switch option = strings.ToUpper(key[i+1:]); option {
		case "WEIGHT", "AFFINITY", "LOCALITY", "DRAIN", "CHOICE", "ALLOW":
			return key[:i], option, true
		}
	}
	return key, "", true
}

// losesLetters reports whether folding deletes letters, not just punctuation.
func losesLetters(left string) bool {
	return strings.IndexFunc(left, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0
}
