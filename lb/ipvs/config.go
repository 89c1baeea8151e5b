package ipvs

import (
	"errors"
	"net/netip"
)

// ErrNotSupported says that this kernel, or what this process may do on it,
// does not allow balancing by IPVS. The error it is wrapped in says why.
var ErrNotSupported = errors.New("balancing by IPVS is not possible here")

// ErrForeign is the error of a service that somebody else has put into IPVS.
var ErrForeign = errors.New("somebody else balances this address here, which is left as it is")

// Config says what is balanced beside the machine's own processes.
type Config struct {
	// Node4 and Node6 are what clients on this machine connect from: an address
	// of the machine that backends can answer to. Without one of a family,
	// traffic that others send through this machine is not balanced in it.
	Node4, Node6 netip.Addr
	// Containers is a folder in which each file names, as its content, the
	// network namespace of a container whose own processes are to be balanced:
	// DC/OS' CNI plugin writes such files. Empty means none. It need not exist.
	Containers string
	// TakeOver makes services ours that somebody else has put into IPVS, another
	// balancer that is gone for good, say. Otherwise they are left alone and
	// are an error, ErrForeign, of that service.
	TakeOver bool
}

// DefaultConfig returns a Config that watches the folder of DC/OS.
func DefaultConfig() Config {
	return Config{Containers: "/var/run/dcos/cni/l4lb"}
}
