package devcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// frameworkName is what Marathon is called in Mesos.
const frameworkName = "marathon"

// marathonHandler is as much of Marathon's REST as trying things needs. There
// are no deployments: a change is accepted and happens.
func (c *Cluster) marathonHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "pong") })
	mux.HandleFunc("GET /v2/info", c.serveInfo)
	mux.HandleFunc("GET /v2/events", c.serveEvents)
	mux.HandleFunc("GET /v2/pods/::status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, []struct{}{}) })
	mux.HandleFunc("GET /v2/pods/{id...}", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Errorf("no pod %s", pathID(r))) // there are none here
	})
	mux.HandleFunc("GET /v2/tasks", c.serveTasks)
	mux.HandleFunc("GET /v2/apps", c.serveApps)
	mux.HandleFunc("POST /v2/apps", c.createApp)
	mux.HandleFunc("GET /v2/apps/{id...}", c.serveApp)
	mux.HandleFunc("PUT /v2/apps/{id...}", c.updateApp)
	mux.HandleFunc("DELETE /v2/apps/{id...}", c.deleteApp)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Clients write /v2/apps//id, which the mux would redirect.
		r.URL.Path = strings.ReplaceAll(r.URL.Path, "//", "/")
		mux.ServeHTTP(w, r)
	})
}

// appDocument is an app as /v2/apps shows it. Message is ours alone: what
// AppStatus says.
type appDocument struct {
	plainApp
	VersionInfo    map[string]string `json:"versionInfo"`
	TasksStaged    int               `json:"tasksStaged"`
	TasksRunning   int               `json:"tasksRunning"`
	TasksHealthy   int               `json:"tasksHealthy"`
	TasksUnhealthy int               `json:"tasksUnhealthy"`
	Deployments    []struct{}        `json:"deployments"`
	Tasks          []taskDocument    `json:"tasks,omitempty"`
	Message        string            `json:"message,omitempty"`
}

type taskDocument struct {
	ID                 string           `json:"id"`
	AppID              string           `json:"appId"`
	Host               string           `json:"host"`
	SlaveID            string           `json:"slaveId"`
	State              string           `json:"state"`
	Ports              []int            `json:"ports"`
	ServicePorts       []int            `json:"servicePorts"`
	IPAddresses        []addressOfTask  `json:"ipAddresses"`
	StagedAt           string           `json:"stagedAt"`
	StartedAt          string           `json:"startedAt,omitempty"`
	Version            string           `json:"version"`
	HealthCheckResults []resultDocument `json:"healthCheckResults,omitempty"`
	Role               string           `json:"role"`
}

type addressOfTask struct {
	IPAddress string `json:"ipAddress"`
	Protocol  string `json:"protocol"`
}

type resultDocument struct {
	InstanceID          string `json:"instanceId"`
	Alive               bool   `json:"alive"`
	ConsecutiveFailures int    `json:"consecutiveFailures"`
	FirstSuccess        string `json:"firstSuccess,omitempty"`
	LastSuccess         string `json:"lastSuccess,omitempty"`
	LastFailure         string `json:"lastFailure,omitempty"`
	LastFailureCause    string `json:"lastFailureCause,omitempty"`
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func (c *Cluster) taskDocument(t *task) taskDocument {
	d := taskDocument{
		ID: t.id, AppID: t.app.ID, Host: c.cfg.AgentAddr.String(), SlaveID: c.world.agentID().Value, State: t.record.State,
		Ports: hostPorts(t.app, t.ports), ServicePorts: servicePorts(t.app), StagedAt: stamp(t.staged), StartedAt: stamp(t.started),
		IPAddresses: []addressOfTask{{c.cfg.AgentAddr.String(), protocolOf(c.cfg.AgentAddr)}}, Version: t.app.Version, Role: "*",
	}
	for _, s := range t.checks {
		if s.judged {
			instance := strings.TrimSuffix(t.id, fmt.Sprintf("._app.%d", t.place.run))
			d.HealthCheckResults = append(d.HealthCheckResults, resultDocument{
				InstanceID: instance, Alive: s.alive, ConsecutiveFailures: s.failures, FirstSuccess: stamp(s.first),
				LastSuccess: stamp(s.last), LastFailure: stamp(s.lastFailure), LastFailureCause: s.cause,
			})
		}
	}
	return d
}

func servicePorts(a *App) []int {
	out := []int{}
	for _, p := range a.PortDefinitions {
		out = append(out, p.Port)
	}
	if a.Container != nil {
		for _, m := range a.Container.PortMappings {
			out = append(out, m.ServicePort)
		}
	}
	return out
}

func (c *Cluster) appDocumentLocked(a *appState, withTasks bool) appDocument {
	d := appDocument{plainApp: plainApp(*a.app), Deployments: []struct{}{}, Message: c.appStatusLocked(a).Message}
	d.VersionInfo = map[string]string{"lastScalingAt": d.Version, "lastConfigChangeAt": d.Version}
	for _, t := range c.world.tasks {
		if t.app.ID != d.ID {
			continue
		}
		switch {
		case t.record.State != stateRunning:
			d.TasksStaged++
		case t.healthy():
			d.TasksRunning++
			if len(t.checks) > 0 {
				d.TasksHealthy++
			}
		default:
			d.TasksRunning++
			if slices.ContainsFunc(t.checks, func(s checkState) bool { return s.judged && !s.alive }) {
				d.TasksUnhealthy++
			}
		}
		if withTasks {
			d.Tasks = append(d.Tasks, c.taskDocument(t))
		}
	}
	return d
}

func (c *Cluster) serveApps(w http.ResponseWriter, r *http.Request) {
	withTasks := slices.Contains(r.URL.Query()["embed"], "apps.tasks")
	docs := []appDocument{}
	c.mu.Lock()
	for _, a := range c.appsLocked() {
		docs = append(docs, c.appDocumentLocked(a, withTasks))
	}
	c.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"apps": docs})
}

func (c *Cluster) serveTasks(w http.ResponseWriter, _ *http.Request) {
	docs := []taskDocument{}
	c.mu.Lock()
	for _, t := range c.world.tasks {
		docs = append(docs, c.taskDocument(t))
	}
	c.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"tasks": docs})
}

func (c *Cluster) serveInfo(w http.ResponseWriter, _ *http.Request) {
	info := map[string]any{
		"name":        frameworkName,
		"version":     "1.11.24",
		"elected":     true,
		"leader":      c.marathonAddr.String(),
		"frameworkId": c.world.frameworkID().Value,
	}
	config := map[string]string{"framework_name": frameworkName}
	if l := c.leader(); l != nil {
		config["master"], config["mesos_leader_ui_url"] = l.addr.String(), "http://"+l.addr.String()+"/"
	}
	info["marathon_config"] = config
	writeJSON(w, http.StatusOK, info)
}

func pathID(r *http.Request) string { return "/" + strings.Trim(r.PathValue("id"), "/") }

func (c *Cluster) serveApp(w http.ResponseWriter, r *http.Request) {
	doc, ok := c.document(pathID(r))
	if !ok {
		writeError(w, http.StatusNotFound, noApp(pathID(r)))
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"app": doc})
}

func (c *Cluster) document(id string) (appDocument, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.apps[id]
	if a == nil {
		return appDocument{}, false
	}
	return c.appDocumentLocked(a, true), true
}

func (c *Cluster) createApp(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	var app App
	if err := json.Unmarshal(body, &app); err != nil {
		writeError(w, http.StatusUnprocessableEntity, err)
		return
	}
	if _, exists := c.document(app.ID); exists {
		writeError(w, http.StatusConflict, fmt.Errorf("app %s exists already", app.ID))
		return
	}
	c.deployAndAnswer(w, app, http.StatusCreated)
}

func (c *Cluster) deployAndAnswer(w http.ResponseWriter, app App, code int) {
	if err := c.Deploy(app); err != nil {
		writeError(w, http.StatusUnprocessableEntity, err)
		return
	}
	doc, _ := c.document(app.ID)
	if code == http.StatusCreated {
		writeJSON(w, code, doc)
		return
	}
	writeJSON(w, code, deployed(doc.Version))
}

// updateApp changes the fields given; an app that is not there is made.
func (c *Cluster) updateApp(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	id, code := pathID(r), http.StatusCreated
	var base any = map[string]string{"id": id}
	if doc, exists := c.document(id); exists {
		base, code = doc.plainApp, http.StatusOK
	}
	app, err := merge(base, body)
	if err == nil && app.ID != id {
		err = fmt.Errorf("app %s cannot become %s", id, app.ID)
	}
	if err != nil {
		writeError(w, http.StatusUnprocessableEntity, err)
		return
	}
	c.deployAndAnswer(w, app, code)
}

func (c *Cluster) deleteApp(w http.ResponseWriter, r *http.Request) {
	if err := c.Remove(pathID(r)); err != nil {
		writeError(w, http.StatusNotFound, noApp(pathID(r)))
		return
	}
	writeJSON(w, http.StatusOK, deployed(stamp(time.Now())))
}

func deployed(version string) map[string]string {
	return map[string]string{"version": version, "deploymentId": newUUID()}
}

func noApp(id string) error { return fmt.Errorf("no app %s", id) }

func writeError(w http.ResponseWriter, code int, err error) {
	writeJSON(w, code, map[string]string{"message": err.Error()})
}

// readBody reads a JSON body of at most 1 MB, or answers with an error.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err == nil && !json.Valid(body) {
		err = errors.New("the body is not JSON")
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return nil, false
	}
	return body, true
}
