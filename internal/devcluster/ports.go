package devcluster

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"waggle/model"
)

// portSpec is one port of an app, whichever mode its network has.
type portSpec struct {
	name      string
	protocol  string        // as written
	protocols []model.Proto // what protocol means; empty if nothing
	labels    map[string]string
	networks  []string // names of the container networks it is in; empty outside of them
	want      int      // the port the process needs; 0 is any that is free
	container int      // the port inside of the container; 0 in host mode, or "same as on the host"
	host      bool     // has a port on the agent
}

// ports returns the app's ports in the order $PORT0, $PORT1, ... count them.
func (a *App) ports() []portSpec {
	var out []portSpec
	if a.mode() == modeHost {
		for _, d := range a.PortDefinitions {
			s := portSpec{name: d.Name, protocol: d.Protocol, protocols: protocols(d.Protocol), labels: d.Labels, host: true}
			if a.RequirePorts {
				s.want = d.Port
			}
			out = append(out, s)
		}
		return out
	}
	for _, m := range a.Container.PortMappings {
		s := portSpec{name: m.Name, protocol: m.Protocol, protocols: protocols(m.Protocol), labels: m.Labels, container: m.ContainerPort}
		if m.HostPort != nil {
			s.host, s.want = true, *m.HostPort
		} else {
			// There is no container with an address of its own here, so that
			// the process has this very port on the host.
			s.want, s.networks = m.ContainerPort, a.networkNames(m)
		}
		out = append(out, s)
	}
	return out
}

func (a *App) networkNames(m PortMapping) []string {
	if len(m.NetworkNames) > 0 {
		return m.NetworkNames
	}
	var out []string
	for _, n := range a.Networks {
		out = append(out, n.Name)
	}
	return out
}

// protocols reads "tcp", "udp" or both, separated by a comma.
func protocols(s string) []model.Proto {
	var out []model.Proto
	for _, word := range strings.Split(s, ",") {
		p, err := model.ParseProto(strings.TrimSpace(word))
		if err != nil {
			return nil
		}
		out = append(out, p)
	}
	return out
}

// errPortTaken says that another task of the cluster has a port: one waits for it.
var errPortTaken = errors.New("is in use by another task")

// assign chooses a port for each spec: the fixed ones as they are, the others
// free ones of r. taken holds the ports of running tasks and who has them. The
// error wraps errPortTaken if one of them is in the way; otherwise it is
// something else on this machine, and the ports are returned all the same.
func assign(specs []portSpec, r PortRange, taken map[int]string) ([]int, error) {
	ports := make([]int, len(specs))
	ours := map[int]bool{}
	var busy error
	for i, s := range specs {
		if s.want == 0 {
			continue
		}
		if who := taken[s.want]; who != "" {
			return nil, fmt.Errorf("host port %d %w: %s", s.want, errPortTaken, who)
		}
		if err := bindable(s.want, s.protocols); err != nil && busy == nil {
			busy = fmt.Errorf("host port %d cannot be used on this machine: %w", s.want, err)
		}
		ports[i], ours[s.want] = s.want, true
	}
	for i, s := range specs {
		for n, start := r.size(), rand.IntN(r.size()); ports[i] == 0 && n > 0; n-- {
			p := int(r.First) + (start+n)%r.size()
			if !ours[p] && taken[p] == "" && bindable(p, s.protocols) == nil {
				ports[i], ours[p] = p, true
			}
		}
		if ports[i] == 0 {
			return nil, fmt.Errorf("every port from %d to %d %w", r.First, r.Last, errPortTaken)
		}
	}
	return ports, busy
}

// bindable tries the port on all addresses: who listens on one of them is
// found too.
func bindable(port int, protocols []model.Proto) error {
	addr := net.JoinHostPort("", strconv.Itoa(port))
	for _, p := range protocols {
		if p == model.UDP {
			c, err := net.ListenPacket("udp", addr)
			if err != nil {
				return reason(err)
			}
			c.Close()
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return reason(err)
		}
		l.Close()
	}
	return nil
}

// reason returns the system's own words, without the address and the call.
func reason(err error) error {
	if sys := (*os.SyscallError)(nil); errors.As(err, &sys) {
		return sys.Err
	}
	return err
}

// environ is the environment of a task: Marathon's variables, $WAGGLE, the
// app's own, and of ours only what programs need to be found.
func (c *Cluster) environ(t *task) []string {
	env := map[string]string{
		"PATH":            os.Getenv("PATH"),
		"HOST":            c.cfg.AgentAddr.String(),
		"MARATHON_APP_ID": t.app.ID,
		"MESOS_TASK_ID":   t.id,
		"MESOS_SANDBOX":   t.sandbox,
		"HOME":            t.sandbox,
		"WAGGLE":          c.executable,
	}
	var all []string
	for i, s := range t.app.ports() {
		p := strconv.Itoa(t.ports[i])
		all = append(all, p)
		env["PORT"+strconv.Itoa(i)] = p
		if s.name != "" {
			env["PORT_"+variable(s.name)] = p
		}
	}
	if len(all) > 0 {
		env["PORT"], env["PORTS"] = all[0], strings.Join(all, ",")
	}
	maps.Copy(env, t.app.Env)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

// variable folds a port's name to what a shell can name.
func variable(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
}
