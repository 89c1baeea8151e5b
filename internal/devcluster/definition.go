package devcluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// definition is what a user may write: the form of today and, beside it, the
// fields of Marathon 1.4 and earlier.
type definition struct {
	*plainApp
	Env       map[string]json.RawMessage `json:"env"`
	Container *oldContainer              `json:"container"`
	Ports     []int                      `json:"ports"`
	IPAddress *oldIPAddress              `json:"ipAddress"`
}

// plainApp is App without its UnmarshalJSON.
type plainApp App

type oldContainer struct {
	Type         string
	PortMappings []PortMapping
	Docker       *struct {
		Docker
		Network      string
		PortMappings []PortMapping
	}
}

type oldIPAddress struct {
	NetworkName string
	Discovery   struct{ Ports []oldDiscoveryPort }
}

type oldDiscoveryPort struct {
	Number         int
	Name, Protocol string
	Labels         map[string]string
}

// UnmarshalJSON reads either form and refuses what Marathon would refuse. The
// error names the app and the field.
func (a *App) UnmarshalJSON(data []byte) error {
	p := plainApp{Instances: 1, CPUs: 1, Mem: 128, BackoffSeconds: 1, BackoffFactor: 1.15, MaxLaunchDelaySeconds: 300, KillSelection: "YOUNGEST_FIRST"}
	d := definition{plainApp: &p}
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("app %s: %w", p.ID, err)
	}
	p.ID = "/" + strings.Trim(p.ID, "/")
	out := App(p)
	if err := errors.Join(d.readEnv(&out), d.readContainer(&out)); err != nil {
		return fmt.Errorf("app %s: %w", out.ID, err)
	}
	d.readPorts(&out)
	out.fillIn()
	if err := out.check(); err != nil {
		return fmt.Errorf("app %s: %w", out.ID, err)
	}
	*a = out
	return nil
}

func (d *definition) readEnv(a *App) error {
	a.Env = map[string]string{}
	for k, raw := range d.Env {
		var v string
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("env.%s: only text is supported: %w", k, err)
		}
		a.Env[k] = v
	}
	return nil
}

func (d *definition) readContainer(a *App) error {
	c := d.Container
	if c == nil {
		if d.IPAddress != nil {
			a.Container = &Container{Type: "MESOS"}
		}
		return nil
	}
	a.Container = &Container{Type: c.Type, PortMappings: c.PortMappings}
	if c.Docker == nil {
		return nil
	}
	a.Container.Docker = &c.Docker.Docker
	if len(c.Docker.PortMappings) > 0 {
		if len(c.PortMappings) > 0 && !reflect.DeepEqual(c.PortMappings, c.Docker.PortMappings) {
			return errors.New("container.portMappings: given twice, in container and differently in container.docker")
		}
		a.Container.PortMappings = c.Docker.PortMappings
	}
	if c.Docker.Network == "" {
		return nil
	}
	n := Network{Mode: map[string]string{"HOST": modeHost, "BRIDGE": modeBridge, "USER": modeContainer}[c.Docker.Network]}
	if n.Mode == "" {
		return fmt.Errorf("container.docker.network: %q is none of HOST, BRIDGE, USER", c.Docker.Network)
	}
	if n.Mode == modeContainer && d.IPAddress != nil {
		n.Name = d.IPAddress.NetworkName
	}
	a.Networks = []Network{n}
	return nil
}

// readPorts converts ports and ipAddress.
func (d *definition) readPorts(a *App) {
	if d.Ports != nil && a.mode() == modeHost {
		a.PortDefinitions = nil
		for _, p := range d.Ports {
			a.PortDefinitions = append(a.PortDefinitions, PortDefinition{Port: p})
		}
	}
	if d.IPAddress == nil || len(a.Networks) > 0 {
		return
	}
	a.Networks = []Network{{Mode: modeContainer, Name: d.IPAddress.NetworkName}}
	for _, p := range d.IPAddress.Discovery.Ports {
		a.Container.PortMappings = append(a.Container.PortMappings,
			PortMapping{ContainerPort: p.Number, Name: p.Name, Protocol: p.Protocol, Labels: p.Labels})
	}
}

// fillIn sets the defaults that depend on other fields. It changes nothing
// that a shares with another App.
func (a *App) fillIn() {
	if a.BackoffFactor == 0 {
		a.BackoffSeconds, a.BackoffFactor, a.MaxLaunchDelaySeconds = 1, 1.15, 300
	}
	if len(a.Networks) == 0 {
		a.Networks = []Network{{Mode: modeHost}}
	}
	if a.Labels == nil {
		a.Labels = map[string]string{}
	}
	if a.HealthChecks == nil {
		a.HealthChecks = []HealthCheck{}
	}
	if a.mode() != modeHost {
		a.RequirePorts, a.PortDefinitions = false, []PortDefinition{}
		if a.Container == nil {
			a.Container = &Container{Type: "MESOS"}
		}
	} else if a.PortDefinitions == nil {
		a.PortDefinitions = []PortDefinition{{Name: "default"}}
	}
	a.PortDefinitions = slices.Clone(a.PortDefinitions)
	for i := range a.PortDefinitions {
		p := &a.PortDefinitions[i]
		p.Protocol = cmp.Or(p.Protocol, "tcp")
	}
	if a.Container == nil {
		return
	}
	container := *a.Container
	container.PortMappings = slices.Clone(container.PortMappings)
	for i := range container.PortMappings {
		p := &container.PortMappings[i]
		p.Protocol = cmp.Or(p.Protocol, "tcp")
		if p.HostPort == nil && a.mode() == modeBridge {
			p.HostPort = new(int)
		}
	}
	a.Container = &container
}

func (a *App) check() error {
	ids := regexp.MustCompile(`^(/[a-z0-9]([a-z0-9.-]*[a-z0-9])?)+$`)
	switch {
	case !ids.MatchString(a.ID):
		return errors.New("id: must be a path of a-z, 0-9, dots and dashes")
	case a.Instances < 0:
		return fmt.Errorf("instances: %d is negative", a.Instances)
	case a.Cmd != "" && len(a.Args) > 0:
		return errors.New("args: given beside cmd")
	case a.Cmd == "" && len(a.Args) == 0 && a.image() == "":
		return errors.New("cmd: nothing to run: neither cmd, args nor an image")
	case a.BackoffFactor < 1:
		return fmt.Errorf("backoffFactor: %g is below 1", a.BackoffFactor)
	}
	for _, v := range []struct {
		field string
		value float64
	}{{"cpus", a.CPUs}, {"mem", a.Mem}, {"disk", a.Disk}, {"gpus", a.GPUs}, {"backoffSeconds", a.BackoffSeconds},
		{"maxLaunchDelaySeconds", a.MaxLaunchDelaySeconds}, {"taskKillGracePeriodSeconds", a.TaskKillGracePeriodSeconds}} {
		if v.value < 0 {
			return fmt.Errorf("%s: %g is negative", v.field, v.value)
		}
	}
	for i, n := range a.Networks {
		if !slices.Contains([]string{modeHost, modeBridge, modeContainer}, n.Mode) {
			return fmt.Errorf("networks[%d].mode: %q is none of host, container/bridge, container", i, n.Mode)
		}
		if n.Mode != a.mode() {
			return fmt.Errorf("networks[%d].mode: modes must not be mixed", i)
		}
	}
	return errors.Join(a.checkPorts(), a.checkHealth())
}

func (a *App) checkPorts() error {
	for i, p := range a.ports() {
		if p.want < 0 || p.want > 65535 || p.container < 0 || p.container > 65535 {
			return fmt.Errorf("port %d: a port is 0 to 65535", i)
		}
		if len(p.protocols) == 0 {
			return fmt.Errorf("port %d: protocol %q is none of tcp, udp and \"udp,tcp\"", i, p.protocol)
		}
	}
	return nil
}

func (a *App) checkHealth() error {
	onMesos := 0
	for i := range a.HealthChecks {
		h := &a.HealthChecks[i]
		at := fmt.Sprintf("healthChecks[%d]", i)
		index := h.index()
		switch {
		case h.kind() == "":
			return fmt.Errorf("%s.protocol: %q is not known", at, h.Protocol)
		case h.kind() == "COMMAND" && (h.Command == nil || h.Command.Value == ""):
			return fmt.Errorf("%s.command: missing", at)
		case h.kind() != "COMMAND" && h.Port == 0 && (index < 0 || index >= len(a.ports())):
			return fmt.Errorf("%s.portIndex: %d, but the app has %d ports", at, index, len(a.ports()))
		case h.Port < 0 || h.Port > 65535:
			return fmt.Errorf("%s.port: %d is out of range", at, h.Port)
		case h.GracePeriodSeconds < 0 || h.DelaySeconds < 0 || h.MaxConsecutiveFailures < 0:
			return fmt.Errorf("%s: a negative setting", at)
		case h.IntervalSeconds <= 0 || h.TimeoutSeconds <= 0:
			return fmt.Errorf("%s: intervalSeconds and timeoutSeconds must be above 0", at)
		}
		if h.mesos() {
			onMesos++
		}
	}
	if onMesos > 1 {
		return errors.New("healthChecks: at most one check of kind MESOS_* or COMMAND")
	}
	return nil
}
