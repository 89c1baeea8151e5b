package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
)

// schemas are the types that the description has schemas of, by their names.
var schemas = map[string]reflect.Type{
	"Status": reflect.TypeFor[Status](), "Source": reflect.TypeFor[Source](), "Files": reflect.TypeFor[Files](),
	"ZooKeeper": reflect.TypeFor[ZooKeeper](), "Marathon": reflect.TypeFor[Marathon](), "Balancer": reflect.TypeFor[Balancer](), "Ejected": reflect.TypeFor[Ejected](),
	"Ejection": reflect.TypeFor[Ejection](), "SelfTest": reflect.TypeFor[SelfTest](), "BalancerEvent": reflect.TypeFor[BalancerEvent](),
	"Counts": reflect.TypeFor[Counts](), "Task": reflect.TypeFor[Task](), "Port": reflect.TypeFor[Port](), "VIP": reflect.TypeFor[VIP](),
	"Backend": reflect.TypeFor[Backend](), "Record": reflect.TypeFor[Record](), "Problem": reflect.TypeFor[model.Problem](),
	"Failure": reflect.TypeFor[Failure](), "Change": reflect.TypeFor[Change](), "Frontend": reflect.TypeFor[Frontend](),
	"NamedRecords": reflect.TypeFor[NamedRecords](), "Reset": reflect.TypeFor[Reset](), "Pulse": reflect.TypeFor[Pulse](),
	"Traffic": reflect.TypeFor[Traffic](), "VIPTraffic": reflect.TypeFor[VIPTraffic](),
	"MesosDNS": reflect.TypeFor[MesosDNS](), "Transfer": reflect.TypeFor[Transfer](), "Enumeration": reflect.TypeFor[Enumeration](),
	"EnumeratedFramework": reflect.TypeFor[EnumeratedFramework](), "EnumeratedTask": reflect.TypeFor[EnumeratedTask](),
	"ListedRecord": reflect.TypeFor[ListedRecord](), "HostAddress": reflect.TypeFor[HostAddress](),
	"MesosDNSService": reflect.TypeFor[mesosDNSService](), "DCOSService": reflect.TypeFor[dcosService](),
	"DCOSVIP": reflect.TypeFor[DCOSVIP](), "DCOSBackend": reflect.TypeFor[DCOSBackend](), "DCOSNode": reflect.TypeFor[DCOSNode](),
}

// schemaOf is the JSON schema of what encoding/json makes of a type. Of a type
// that has a schema of its own it is a reference, unless it is the whole.
func schemaOf(t reflect.Type, whole bool) map[string]any {
	for name, s := range schemas {
		if s == t && !whole {
			return map[string]any{"$ref": "#/components/schemas/" + name}
		}
	}
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[netip.Addr]():
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), false)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), false)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), false)}
	case reflect.Struct:
		properties, required := map[string]any{}, []any{}
		for _, f := range reflect.VisibleFields(t) {
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || !f.IsExported() {
				continue
			}
			if tag == "" {
				tag = f.Name
			}
			properties[tag] = schemaOf(f.Type, false)
			if options == "" {
				required = append(required, tag)
			}
		}
		slices.SortFunc(required, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		return map[string]any{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	}
	return map[string]any{"type": "integer"}
}

// description is as much of the description as tests read.
type description struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		Summary   string
		Responses map[string]struct {
			Description string
			Content     map[string]struct{ Schema map[string]any }
		}
	}
	Components struct{ Schemas map[string]map[string]any }
}

func described(t *testing.T) description {
	t.Helper()
	var d description
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func undescribed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if _, isText := e.(string); k == "description" && isText {
				continue
			}
			out[k] = undescribed(e)
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, undescribed(e))
		}
		return out
	}
	return v
}

// TestTheSchemasAreThoseOfTheTypes makes them so where WAGGLE_UPDATE is set, and
// leaves their descriptions.
func TestTheSchemasAreThoseOfTheTypes(t *testing.T) {
	d := described(t)
	want, got := map[string]any{}, map[string]any{}
	for name, typ := range schemas {
		want[name] = schemaOf(typ, true)
	}
	for name, s := range d.Components.Schemas {
		got[name] = undescribed(s)
	}
	diff := cmp.Diff(want, got)
	if diff != "" && os.Getenv("WAGGLE_UPDATE") == "" {
		t.Errorf("WAGGLE_UPDATE=1 go test ./api mends this:\n%s", diff)
	} else if diff != "" {
		update(t, d, want)
	}
}

func update(t *testing.T, d description, want map[string]any) {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(openAPI, &all); err != nil {
		t.Fatal(err)
	}
	for name, s := range want {
		if text, ok := d.Components.Schemas[name]["description"]; ok {
			s.(map[string]any)["description"] = text
		}
	}
	all["components"].(map[string]any)["schemas"] = want
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := errors.Join(enc.Encode(all), os.WriteFile("openapi.json", out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestThePathsAreThoseOfTheServer(t *testing.T) {
	s := newTestServer(t, Config{MesosDNS: MesosDNS{EnumerationOn: true}}, newCluster().now)
	var want []string
	for _, r := range slices.Concat(s.newRoutes(), pageRoutes(), s.mesosDNSRoutes(), s.dcosRoutes(), s.dcosOwnRoutes()) {
		want = append(want, strings.TrimSuffix(r.path, "{$}"))
	}
	slices.Sort(want)
	d := described(t)
	if diff := cmp.Diff(slices.Compact(want), slices.Sorted(maps.Keys(d.Paths))); diff != "" {
		t.Error(diff)
	}
	for path, methods := range d.Paths {
		if _, ok := methods["get"]; !ok || len(methods) != 1 {
			t.Errorf("%s has methods besides GET", path)
		}
		at := strings.NewReplacer("{", "", "}", "").Replace(path)
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			w := httptest.NewRecorder()
			if s.Handler().ServeHTTP(w, httptest.NewRequest(method, at, nil)); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
}

// request is one that is answered as described.
type request struct {
	path, url string
	status    int
	early     bool // before there is a picture
	dcos      bool // by the face of DC/OS' daemon
	accept    string
}

func requests() []request {
	out := []request{
		{path: "/", url: "/", status: 200}, {path: "/page.js", url: "/page.js", status: 200}, {path: "/page.css", url: "/page.css", status: 200},
		{path: "/metrics", url: "/metrics", status: 200}, {path: "/healthz", url: "/healthz", status: 200},
		{path: "/readyz", url: "/readyz", status: 200}, {path: "/readyz", url: "/readyz", status: 503, early: true},
		{path: "/v2/status", url: "/v2/status", status: 200}, {path: "/v2/openapi.json", url: "/v2/openapi.json", status: 200},
		{path: "/v2/explain", url: "/v2/explain?q=web", status: 200}, {path: "/v2/explain", url: "/v2/explain", status: 400},
		{path: "/v2/vips/{vip}", url: "/v2/vips/web.marathon", status: 200}, {path: "/v2/vips/{vip}", url: "/v2/vips/x", status: 404},
		{path: "/v2/records/{name}", url: "/v2/records/web.marathon.mesos", status: 200}, {path: "/v2/records/{name}", url: "/v2/records/x", status: 404},
		{path: "/v2/problems", url: "/v2/problems", status: 200},
		{path: "/v2/changes", url: "/v2/changes?topics=x", status: 400}, {path: "/v2/changes", url: "/v2/changes", status: 200},
		{path: "/v1/hosts/{host}/ports", url: "/v1/hosts/x/ports", status: 501},
		{path: "/v1/metrics", url: "/v1/metrics", status: 200}, {path: "/v1/metrics/{registry}", url: "/v1/metrics/l4lb", status: 200},
		{path: "/v1/metrics/{registry}", url: "/v1/metrics/x", status: 404},
		{path: "/v1/config", url: "/v1/config", status: 501, dcos: true}, {path: "/v1/enumerate", url: "/v1/enumerate", status: 501, dcos: true},
	}
	for _, list := range []string{"/v2/tasks", "/v2/vips", "/v2/records"} {
		out = append(out, request{path: list, url: list, status: 200}, request{path: list, url: list + "?limit=0", status: 400})
	}
	for path, url := range map[string]string{
		"/v1/hosts/{host}": "/v1/hosts/web.marathon.mesos", "/v1/services/{service}": "/v1/services/_web._tcp.marathon.mesos",
		"/v1/version": "/v1/version", "/v1/config": "/v1/config", "/v1/enumerate": "/v1/enumerate", "/v1/axfr": "/v1/axfr",
		"/v1/vips": "/v1/vips", "/v1/nodes": "/v1/nodes", "/v1/records": "/v1/records", "/lashup/key": "/lashup/key",
	} {
		out = append(out, request{path: path, url: url, status: 200}, request{path: path, url: url, status: 406, accept: "text/html"})
	}
	for _, url := range []string{"/v1/version", "/v1/hosts/web.marathon.mesos", "/v1/services/_web._tcp.marathon.mesos"} {
		path := strings.NewReplacer("web.marathon.mesos", "{host}", "_web._tcp.marathon.mesos", "{service}").Replace(url)
		out = append(out, request{path: path, url: url, status: 200, dcos: true})
	}
	out = append(out, request{path: "/v1/hosts/{host}/ports", url: "/v1/hosts/x/ports", status: 406, accept: "text/html"})
	for _, url := range []string{
		"/v2/tasks", "/v2/vips", "/v2/records", "/v2/vips/{vip}", "/v2/records/{name}", "/v2/problems", "/v2/explain", "/v1/hosts/{host}",
		"/v1/services/{service}", "/v1/enumerate", "/v1/axfr", "/v1/vips", "/v1/nodes", "/v1/records",
	} {
		out = append(out, request{path: url, url: strings.NewReplacer("{", "", "}", "").Replace(url), status: 503, early: true})
	}
	return out
}

func TestAnswersAreAsDescribed(t *testing.T) {
	d := described(t)
	c := newCluster()
	c.app("web", 1, 2)
	c.turn()
	full := func() View {
		v := c.now()
		v.Explain = func(q string) any { return map[string]any{"query": q, "found": true, "subjects": []any{}} }
		v.Problems = func() []model.Problem { return []model.Problem{{Task: "t", Field: "f", Value: "v", Error: "e"}} }
		return v
	}
	cfg := Config{VIPZone: "l4lb.thisdcos.directory", CryptoID: "x", MesosDNS: MesosDNS{
		EnumerationOn: true, Domain: "mesos", Masters: []string{}, Resolvers: []string{}, IPSources: []string{}, ZoneResolvers: map[string][]string{}}}
	early := newTestServer(t, cfg, func() View { return View{Status: func() Status { return Status{} }} })
	s := newTestServer(t, cfg, full)
	cfg.CryptoID = ""
	keyless := newTestServer(t, cfg, full)
	seen := map[string]bool{}
	for _, r := range append(requests(), request{path: "/lashup/key", url: "/lashup/key", status: 404}, request{path: "/v2/changes", url: "/v2/changes", status: 503}) {
		h := s.handler
		switch {
		case r.early:
			h = early.handler
		case r.dcos:
			h = s.dcos
		case r.path == "/lashup/key" && r.status == 404:
			h = keyless.handler
		case r.path == "/v2/changes" && r.status == 503:
			for s.feed.join(maxStreams) {
				defer s.feed.leave()
			}
		}
		seen[fmt.Sprint(r.path, " ", r.status)] = true
		r.answered(t, h, d)
	}
	for path, methods := range d.Paths {
		for status := range methods["get"].Responses {
			if !seen[path+" "+status] {
				t.Errorf("%s: %s is described and never seen", path, status)
			}
		}
	}
}

// answered holds one answer against its description.
func (r request) answered(t *testing.T, h http.Handler, d description) {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, r.url, nil)
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	w := &takesAll{httptest.NewRecorder()}
	if r.path == "/v2/changes" && r.status == 200 {
		ended, end := contextThatEnds(t)
		defer end()
		req = req.WithContext(ended)
	}
	h.ServeHTTP(w, req)
	described, ok := d.Paths[r.path]["get"].Responses[fmt.Sprint(w.Code)]
	kind, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
	content, typed := described.Content[kind]
	if w.Code != r.status || !ok || !typed || described.Description == "" {
		t.Errorf("%s: %d %s is not described, or not %d: %.200s", r.url, w.Code, kind, r.status, w.Body)
		return
	}
	if kind != "application/json" {
		return
	}
	var v any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Errorf("%s: %v", r.url, err)
	}
	if why := d.fits(v, content.Schema); why != "" {
		t.Errorf("%s: %s in %.300s", r.url, why, w.Body)
	}
}

// fits says why v is not what a schema describes, or nothing.
func (d description) fits(v any, schema map[string]any) string {
	if ref, ok := schema["$ref"].(string); ok {
		return d.fits(v, d.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")])
	}
	if several, ok := schema["oneOf"].([]any); ok {
		for _, one := range several {
			if d.fits(v, one.(map[string]any)) == "" {
				return ""
			}
		}
		return fmt.Sprintf("%v is none of several", v)
	}
	kinds := map[string]bool{"object": false, "array": false, "string": false, "number": false, "integer": false, "boolean": false}
	switch v := v.(type) {
	case map[string]any:
		kinds["object"] = true
	case []any:
		kinds["array"] = true
	case string:
		kinds["string"] = true
	case float64:
		kinds["number"], kinds["integer"] = true, v == float64(int64(v))
	case bool:
		kinds["boolean"] = true
	}
	if kind, ok := schema["type"].(string); !ok || !kinds[kind] {
		return fmt.Sprintf("%v is no %v", v, schema["type"])
	}
	if list, ok := v.([]any); ok {
		for _, e := range list {
			if why := d.fits(e, schema["items"].(map[string]any)); why != "" {
				return why
			}
		}
	}
	if object, ok := v.(map[string]any); ok {
		return d.objectFits(object, schema)
	}
	return ""
}

func (d description) objectFits(v, schema map[string]any) string {
	properties, ok := schema["properties"].(map[string]any)
	if _, more := schema["additionalProperties"]; !ok && !more {
		return "" // any object
	}
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Sprintf("there is no %v", name)
		}
	}
	for name, e := range v {
		s, ok := properties[name].(map[string]any)
		if other, more := schema["additionalProperties"].(map[string]any); !ok && more {
			s, ok = other, true
		}
		if !ok {
			return name + " is not described"
		}
		if why := d.fits(e, s); why != "" {
			return name + ": " + why
		}
	}
	return ""
}
