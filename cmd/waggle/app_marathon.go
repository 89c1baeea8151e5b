package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// marathonREST speaks to a Marathon's REST interface.
type marathonREST struct {
	base string // as in http://127.0.0.1:8080; user:password@ is sent
}

// marathonApp is what we read of an app.
type marathonApp struct {
	ID             string            `json:"id"`
	Instances      int               `json:"instances"`
	TasksStaged    int               `json:"tasksStaged"`
	TasksRunning   int               `json:"tasksRunning"`
	TasksHealthy   int               `json:"tasksHealthy"`
	TasksUnhealthy int               `json:"tasksUnhealthy"`
	Deployments    []json.RawMessage `json:"deployments"`
	HealthChecks   []json.RawMessage `json:"healthChecks"`
	Tasks          []struct {
		ID string `json:"id"`
	} `json:"tasks"`
	PortDefinitions []labelled `json:"portDefinitions"`
	Container       struct {
		PortMappings []labelled `json:"portMappings"`
		Docker       struct {
			PortMappings []labelled `json:"portMappings"`
		} `json:"docker"`
	} `json:"container"`
	IPAddress struct {
		Discovery struct {
			Ports []labelled `json:"ports"`
		} `json:"discovery"`
	} `json:"ipAddress"`
	Message string `json:"message"` // the embedded Marathon's: why it does not run
}

type labelled struct {
	Labels map[string]string `json:"labels"`
}

// vips returns the labels that ask for VIPs, as in "/web:80".
func (a marathonApp) vips() []string {
	var out []string
	for _, list := range [][]labelled{a.PortDefinitions, a.Container.PortMappings, a.Container.Docker.PortMappings, a.IPAddress.Discovery.Ports} {
		for _, p := range list {
			for key, value := range p.Labels {
				n, ok := strings.CutPrefix(strings.ToUpper(key), "VIP_")
				if ok && strings.Trim(n, "0123456789") == "" {
					out = append(out, value)
				}
			}
		}
	}
	return out
}

// settled reports whether the app is as it is wished.
func (a marathonApp) settled() bool {
	return len(a.Deployments) == 0 && a.TasksStaged == 0 && a.TasksRunning == a.Instances &&
		(len(a.HealthChecks) == 0 || a.TasksHealthy == a.Instances)
}

// progress is one line on how far the app has come.
func (a marathonApp) progress() string {
	text := fmt.Sprintf("%s: %d of %d running", a.ID, a.TasksRunning, a.Instances)
	if len(a.HealthChecks) > 0 {
		text += fmt.Sprintf(", %d healthy", a.TasksHealthy)
	}
	for _, more := range []struct {
		n    int
		what string
	}{{a.TasksUnhealthy, "unhealthy"}, {a.TasksStaged, "starting"}, {len(a.Deployments), "deployments under way"}} {
		if more.n > 0 {
			text += fmt.Sprintf(", %d %s", more.n, more.what)
		}
	}
	if a.Message != "" {
		text += " (" + a.Message + ")"
	}
	return text
}

// errNoApp says that Marathon has no such app.
var errNoApp = errors.New("no such app")

func appPath(id string) string { return "/v2/apps/" + strings.Trim(id, "/") }

// app returns one app. It returns errNoApp for one that is not there.
func (m marathonREST) app(ctx context.Context, id string) (marathonApp, error) {
	var reply struct {
		App marathonApp `json:"app"`
	}
	err := m.call(ctx, http.MethodGet, appPath(id), nil, &reply)
	return reply.App, err
}

// call sends body, nil for none, and reads the JSON answer into out, nil for
// nowhere.
func (m marathonREST) call(ctx context.Context, method, path string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	at, err := url.Parse(m.base)
	if err != nil || at.Host == "" {
		return fmt.Errorf("%q is not the URL of a Marathon", m.base)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(m.base, "/")+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask Marathon: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask Marathon: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read Marathon's answer: %w", err)
	}
	if resp.StatusCode == http.StatusNotFound {
		return errNoApp
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("marathon at %s: %s: %s", at.Host, resp.Status, complaint(text))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read Marathon's answer: %w", err)
	}
	return nil
}

// complaint is what Marathon says is wrong, in one line.
func complaint(text []byte) string {
	var said struct {
		Message string          `json:"message"`
		Details json.RawMessage `json:"details"`
	}
	if json.Unmarshal(text, &said) != nil || said.Message == "" {
		return strings.TrimSpace(string(text))
	}
	if len(said.Details) > 0 {
		said.Message += " " + string(said.Details)
	}
	return said.Message
}

// every calls f at once and then twice a second until it says that it is done,
// for as long as ctx lasts.
func every(ctx context.Context, f func() (done bool, err error)) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
