package vip

import (
	"net/netip"

	"waggle/model"
)

// Ask is what one VIP label of a task asks for, read for people.
type Ask struct {
	Key, Value string     // of the label, as written
	Name       string     // folded "name.framework"; empty for a VIP given by address
	Addr       netip.Addr // zero for a named VIP
	Port       uint16
	Proto      model.Proto
	Backend    Backend // without Addr if the task can be no backend
}

// Asks returns what the labels of t, a task of a framework with this name, ask
// for, once for each backend, and what is wrong with them. A task that is
// preparing or has ended asks for nothing. It is pure.
func Asks(cfg Config, framework string, t *model.Task) ([]Ask, []model.Problem) {
	var out []Ask
	r := newAppReader(cfg, framework)
	problems := r.read(t, func(to target, c claim) {
		out = append(out, Ask{
			Key: c.key, Value: c.value, Name: to.name, Addr: to.addr, Port: c.port, Proto: c.proto, Backend: c.backend,
		})
	})
	return out, problems
}

// Home returns the address that a named VIP has of its own in the family of
// like: it has another only if the names before it in the alphabet took that.
func (c Config) Home(name string, like netip.Addr) netip.Addr {
	p := newPool(c.First6, c.Last6, hash6)
	if like.Is4() {
		p = newPool(c.First4, c.Last4, hash4)
	}
	return p.home(name)
}
