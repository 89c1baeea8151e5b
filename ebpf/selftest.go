package ebpf

// probe is the service that the self-test connects to.
type probe struct{}

func (p *probe) close() error { return nil }
