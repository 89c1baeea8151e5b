package agent

import (
	"waggle/dns"
	"waggle/lb"
	"waggle/vip"
)

// stages is how a Snapshot becomes a State.
type stages struct {
	vip vip.Config
	lb  lb.Config
	dns dns.Config
}

// Reconfigure has the pipeline turn with VIP, LB and DNS of cfg from now on, and
// build what they decide from nothing once. What serves meanwhile is the State
// before it. The rest of cfg is New's only.
func (a *Agent) Reconfigure(cfg Config) {
	a.stages.Store(&stages{cfg.VIP, cfg.LB, cfg.DNS})
	a.poke()
}
