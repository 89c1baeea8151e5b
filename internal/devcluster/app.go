package devcluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// App is a Marathon app definition in the form of Marathon 1.5 and later; it
// marshals to the very document GET /v2/apps shows. Times are in seconds, as
// Marathon writes them. Unmarshalling accepts the form of 1.4 and earlier too,
// fills in Marathon's defaults and ignores fields it does not know. An App
// given to Deploy must not be changed afterwards: its maps and slices are
// shared.
type App struct {
	ID                         string            `json:"id"` // an absolute path: "/group/name"
	Cmd                        string            `json:"cmd,omitempty"`
	Args                       []string          `json:"args,omitempty"` // an argument vector, where there is no Cmd
	User                       string            `json:"user,omitempty"` // empty: Config.User
	Instances                  int               `json:"instances"`
	CPUs                       float64           `json:"cpus"`
	Mem                        float64           `json:"mem"`
	Disk                       float64           `json:"disk"`
	GPUs                       float64           `json:"gpus"`
	Env                        map[string]string `json:"env"`
	Labels                     map[string]string `json:"labels"`
	Networks                   []Network         `json:"networks"`
	PortDefinitions            []PortDefinition  `json:"portDefinitions"` // host mode only
	RequirePorts               bool              `json:"requirePorts"`
	Container                  *Container        `json:"container,omitempty"`
	HealthChecks               []HealthCheck     `json:"healthChecks"`
	BackoffSeconds             float64           `json:"backoffSeconds"`
	BackoffFactor              float64           `json:"backoffFactor"`
	MaxLaunchDelaySeconds      float64           `json:"maxLaunchDelaySeconds"`
	TaskKillGracePeriodSeconds float64           `json:"taskKillGracePeriodSeconds,omitempty"` // 0: Config.KillGrace
	KillSelection              string            `json:"killSelection"`
	Version                    string            `json:"version,omitempty"` // set by Deploy
}

// The modes a Network may have.
const (
	modeHost      = "host"
	modeBridge    = "container/bridge"
	modeContainer = "container"
)

// Network is one network of an app; none means the host's.
type Network struct {
	Mode string `json:"mode"`
	Name string `json:"name,omitempty"`
}

// PortDefinition is one port of an app in the host's network. Port 0, or any
// Port without requirePorts, means one that is free.
type PortDefinition struct {
	Port     int               `json:"port"`
	Protocol string            `json:"protocol"`
	Name     string            `json:"name,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Container says what an app would run in on a real cluster.
type Container struct {
	Type         string        `json:"type"` // DOCKER or MESOS
	Docker       *Docker       `json:"docker,omitempty"`
	PortMappings []PortMapping `json:"portMappings,omitempty"`
}

// Docker is the image of a Container.
type Docker struct {
	Image          string `json:"image"`
	Privileged     bool   `json:"privileged"`
	ForcePullImage bool   `json:"forcePullImage"`
}

// PortMapping is one port of an app in a bridge or container network. A nil
// HostPort means 0, "any", in a bridge and none at all in a container network.
type PortMapping struct {
	ContainerPort int               `json:"containerPort"`
	HostPort      *int              `json:"hostPort,omitempty"`
	ServicePort   int               `json:"servicePort"`
	Protocol      string            `json:"protocol"`
	Name          string            `json:"name,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	NetworkNames  []string          `json:"networkNames,omitempty"`
}

// HealthCheck says how to find out whether a task works. Verdicts of HTTP,
// HTTPS and TCP are Marathon's own and never reach Mesos; those of MESOS_HTTP,
// MESOS_HTTPS, MESOS_TCP and COMMAND do. MaxConsecutiveFailures 0 never kills.
// DelaySeconds is told to Mesos and not waited for.
type HealthCheck struct {
	Protocol               string   `json:"protocol"`
	Path                   string   `json:"path,omitempty"`
	Port                   int      `json:"port,omitempty"`
	PortIndex              *int     `json:"portIndex,omitempty"` // nil: 0, unless Port is given
	Command                *Command `json:"command,omitempty"`
	GracePeriodSeconds     float64  `json:"gracePeriodSeconds"`
	IntervalSeconds        float64  `json:"intervalSeconds"`
	TimeoutSeconds         float64  `json:"timeoutSeconds"`
	DelaySeconds           float64  `json:"delaySeconds"`
	MaxConsecutiveFailures int      `json:"maxConsecutiveFailures"`
}

// Command is the shell command of a COMMAND check: exit code 0 means healthy.
type Command struct {
	Value string `json:"value"`
}

// UnmarshalJSON fills in Marathon's defaults.
func (h *HealthCheck) UnmarshalJSON(data []byte) error {
	type plain HealthCheck
	p := plain{Protocol: "HTTP", GracePeriodSeconds: 300, IntervalSeconds: 60, TimeoutSeconds: 20, DelaySeconds: 15, MaxConsecutiveFailures: 3}
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*h = HealthCheck(p)
	return nil
}

// mode returns the mode of the app's networks, which are never mixed.
func (a *App) mode() string {
	if len(a.Networks) == 0 {
		return modeHost
	}
	return a.Networks[0].Mode
}

// name is how Mesos sees the app: its path reversed, joined by dots.
func (a *App) name() string {
	parts := strings.Split(strings.Trim(a.ID, "/"), "/")
	slices.Reverse(parts)
	return strings.Join(parts, ".")
}

func (a *App) image() string {
	if a.Container == nil || a.Container.Docker == nil {
		return ""
	}
	return a.Container.Docker.Image
}

// sameTasks reports whether tasks of a need not be replaced to become tasks of
// b: the two differ at most in how many there are to be.
func (a App) sameTasks(b App) bool {
	a.Instances, a.Version = b.Instances, b.Version
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// merge returns base with the fields that change names replaced, as PUT does.
func merge(base any, change []byte) (out App, err error) {
	old, err := json.Marshal(base)
	if err != nil {
		return out, err
	}
	doc := map[string]json.RawMessage{}
	for _, layer := range [][]byte{old, change} {
		if err := json.Unmarshal(layer, &doc); err != nil {
			return out, err
		}
	}
	all, err := json.Marshal(doc)
	if err != nil {
		return out, err
	}
	err = json.Unmarshal(all, &out)
	return out, err
}

// ParseApps reads one app, an array of apps or {"apps": [...]}. It returns the
// apps that are valid, and an error that names each one that is not and the
// field that is wrong.
func ParseApps(data []byte) ([]App, error) {
	var list []json.RawMessage
	var doc struct{ Apps *[]json.RawMessage }
	if json.Unmarshal(data, &list) != nil {
		if err := json.Unmarshal(data, &doc); err != nil {
			return nil, err
		}
		list = []json.RawMessage{data}
		if doc.Apps != nil {
			list = *doc.Apps
		}
	}
	var apps []App
	var errs []error
	for _, raw := range list {
		var a App
		if err := json.Unmarshal(raw, &a); err != nil {
			errs = append(errs, err)
			continue
		}
		apps = append(apps, a)
	}
	return apps, errors.Join(errs...)
}

// ReadApps reads files, and the *.json files of folders. It returns the apps
// that could be read; the error names every file that holds something else.
func ReadApps(paths []string) ([]App, error) {
	var apps []App
	var errs []error
	for _, file := range expand(paths, &errs) {
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found, err := ParseApps(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", file, err))
		}
		apps = append(apps, found...)
	}
	return apps, errors.Join(errs...)
}

func expand(paths []string, errs *[]error) []string {
	var files []string
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil || !info.IsDir() {
			files = append(files, p)
			continue
		}
		found, err := fs.Glob(os.DirFS(p), "*.json")
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("read %s: no *.json file in it", p)
		}
		if err != nil {
			*errs = append(*errs, err)
		}
		for _, f := range found {
			files = append(files, filepath.Join(p, f))
		}
	}
	return files
}

// seconds converts what Marathon writes to a Duration, at most a day: enough
// for every setting, and far from overflow.
func seconds(s float64) time.Duration {
	return time.Duration(min(s, 86400) * float64(time.Second))
}
