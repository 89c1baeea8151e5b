package model

import (
	"fmt"
	"strings"
)

// Proto is a transport protocol by its IANA number.
type Proto uint8

// The protocols a port may have.
const (
	TCP Proto = 6
	UDP Proto = 17
)

// ParseProto reads "tcp" or "udp" in any letter case.
func ParseProto(s string) (Proto, error) {
	switch strings.ToLower(s) {
	case "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	}
	return 0, fmt.Errorf("protocol %q is neither tcp nor udp", s)
}

// String returns the lower-case name, or "proto(N)" for an unknown number.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("proto(%d)", uint8(p))
}
