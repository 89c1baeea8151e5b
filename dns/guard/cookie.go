package guard

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"sync/atomic"
	"time"
)

// CookieSize is the size of a cookie that has both parts.
const CookieSize = clientCookie + serverCookie

// Sizes of RFC 7873 section 4 and RFC 9018 section 4.
const (
	clientCookie = 8
	serverCookie = 16
)

// How long server cookies are good, and when a new one is given: RFC 9018
// section 4.3. Clocks of servers that share a secret may differ a little.
const (
	cookieLife  = time.Hour
	cookieRenew = 30 * time.Minute
	cookieAhead = 5 * time.Minute
)

// Secret is what server cookies are made with.
type Secret [16]byte

// Jar makes and checks DNS cookies (RFC 7873) in the form of RFC 9018. It is
// safe for concurrent use.
type Jar struct {
	secrets atomic.Pointer[[]Secret] // the first makes cookies, any proves one
}

// NewJar returns a Jar with the given secrets, of which the first makes cookies
// and all are accepted: servers that clients take for one must share them, and
// roll over by adding, switching, removing. Without any it makes one up.
func NewJar(secrets ...Secret) *Jar {
	j := &Jar{}
	if len(secrets) == 0 {
		secrets = []Secret{newSecret()}
	}
	j.secrets.Store(&secrets)
	return j
}

func newSecret() (s Secret) {
	_, _ = rand.Read(s[:]) // which never fails
	return s
}

// Roll makes up a new secret and accepts the last one besides. Cookies live for
// an hour, so it must not be called more often.
func (j *Jar) Roll() {
	next := []Secret{newSecret(), (*j.secrets.Load())[0]}
	j.secrets.Store(&next)
}

// Cookie is what a client sent.
type Cookie uint8

// What a cookie may be.
const (
	Malformed Cookie = iota // of a length that RFC 7873 does not have
	Unproven                // without a server's part, or with one that is not good
	Proven                  // the client gets what is sent to its address
)

// Check says what the data of a cookie option from client is.
func (j *Jar) Check(data []byte, client netip.Addr, now time.Time) Cookie {
	switch n := len(data); {
	case n == clientCookie:
		return Unproven
	case n < 2*clientCookie || n > 5*clientCookie:
		return Malformed
	case n != CookieSize || data[clientCookie] != 1:
		return Unproven
	}
	made := binary.BigEndian.Uint32(data[clientCookie+4:])
	age := time.Duration(int32(uint32(now.Unix())-made)) * time.Second // RFC 1982
	if age > cookieLife || age < -cookieAhead {
		return Unproven
	}
	for _, s := range *j.secrets.Load() {
		if binary.LittleEndian.Uint64(data[CookieSize-8:]) == s.hash(data[:CookieSize-8], client) {
			return Proven
		}
	}
	return Unproven
}

// Append appends the data of the cookie option for the reply to one that Check
// has not found malformed: what the client sent if that is good for long enough,
// else a new one.
func (j *Jar) Append(dst, data []byte, client netip.Addr, now time.Time) []byte {
	if j.Check(data, client, now) == Proven {
		made := binary.BigEndian.Uint32(data[clientCookie+4:])
		age := time.Duration(int32(uint32(now.Unix())-made)) * time.Second
		s := (*j.secrets.Load())[0]
		if age < cookieRenew && binary.LittleEndian.Uint64(data[CookieSize-8:]) == s.hash(data[:CookieSize-8], client) {
			return append(dst, data...)
		}
	}
	from := len(dst)
	dst = append(dst, data[:clientCookie]...)
	dst = append(dst, 1, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(now.Unix()))
	return binary.LittleEndian.AppendUint64(dst, (*j.secrets.Load())[0].hash(dst[from:], client))
}

// hash is SipHash-2-4 of a cookie up to its hash and the client's address.
func (s Secret) hash(cookie []byte, client netip.Addr) uint64 {
	var message [32]byte
	n := copy(message[:], cookie)
	if client = client.Unmap(); client.Is4() {
		a := client.As4()
		n += copy(message[n:], a[:])
	} else {
		a := client.As16()
		n += copy(message[n:], a[:])
	}
	return sipHash(s, message[:n])
}

// sipHash is SipHash-2-4 (Aumasson and Bernstein, 2012).
func sipHash(key Secret, m []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:])
	v := [4]uint64{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	last := uint64(len(m)) << 56
	for ; len(m) >= 8; m = m[8:] {
		word := binary.LittleEndian.Uint64(m)
		v[3] ^= word
		sipRounds(&v, 2)
		v[0] ^= word
	}
	for i, b := range m {
		last |= uint64(b) << (8 * i)
	}
	v[3] ^= last
	sipRounds(&v, 2)
	v[0] ^= last
	v[2] ^= 0xff
	sipRounds(&v, 4)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

func sipRounds(v *[4]uint64, n int) {
	for range n {
		v[0] += v[1]
		v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
		v[0] = bits.RotateLeft64(v[0], 32)
		v[2] += v[3]
		v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
		v[0] += v[3]
		v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
		v[2] += v[1]
		v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
		v[2] = bits.RotateLeft64(v[2], 32)
	}
}
