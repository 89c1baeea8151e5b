package api

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"waggle/dns"
	"waggle/model"
)

// MesosDNS is our configuration in the words of mesos-dns, as its /v1/config
// shows it. Credentials are never in it.
type MesosDNS struct {
	RefreshSeconds         int
	Port                   int
	Timeout                int
	StateTimeoutSeconds    int
	ZkDetectionTimeout     int
	HttpPort               int
	TTL                    uint32
	SRVRecordDefaultWeight uint16
	SOASerial              uint32
	SOARefresh             uint32
	SOARetry               uint32
	SOAExpire              uint32
	SOAMinttl              uint32
	SOAMname               string // with the final dot, like SOARname
	SOARname               string
	Masters                []string
	ZoneResolvers          map[string][]string
	Resolvers              []string
	IPSources              []string
	Zk                     string // without its password
	Domain                 string // without the final dot
	File                   string
	Listener               string
	HTTPListener           string
	RecurseOn              bool
	DnsOn                  bool
	HttpOn                 bool
	ExternalOn             bool
	EnforceRFC952          bool
	SetTruncateBit         bool
	EnumerationOn          bool // whether /v1/enumerate and /v1/axfr are there
	MesosHTTPSOn           bool
	CACertFile             string
	CertFile               string
	KeyFile                string
	MesosCredentials       struct{ Principal, Secret string }
	IAMConfigFile          string
	MesosAuthentication    string
}

// Transfer is the answer of mesos-dns' /v1/axfr. Lists are sorted, names have
// the final dot, and a service is "target:port".
type Transfer struct {
	TTL            uint32
	Serial         uint32
	RefreshSeconds int
	Mname          string
	Rname          string
	Domain         string
	Records        struct{ As, AAAAs, SRVs map[string][]string }
}

// Enumeration is the answer of mesos-dns' /v1/enumerate: what each task gives
// to names.
type Enumeration struct {
	Frameworks []EnumeratedFramework `json:"frameworks"`
}

// EnumeratedFramework is one name of a framework, of which there may be several.
type EnumeratedFramework struct {
	Tasks []EnumeratedTask `json:"tasks"`
	Name  string           `json:"name"`
}

// EnumeratedTask is one task that runs.
type EnumeratedTask struct {
	Name    string         `json:"name"`
	ID      string         `json:"id"`
	Records []ListedRecord `json:"records"`
}

// ListedRecord is a record as both mesos-dns and DC/OS list them; the Host of a
// service is "target:port".
type ListedRecord struct {
	Name  string `json:"name"`
	Host  string `json:"host"`
	RType string `json:"rtype"` // A, AAAA or SRV
}

// HostAddress is one address of a name.
type HostAddress struct {
	Host string `json:"host"`
	IP   string `json:"ip"`
}

// mesosDNSService is one address of one record of a service.
type mesosDNSService struct {
	Service string `json:"service"`
	Host    string `json:"host"`
	IP      string `json:"ip"`
	Port    string `json:"port"`
}

// mesosDNSRoutes are the paths of mesos-dns.
func (s *Server) mesosDNSRoutes() []route {
	out := []route{
		{"/v1/version", plain(s.mesosDNSVersion)},
		{"/v1/config", plain(func(w http.ResponseWriter, _ *http.Request) { replyOld(w, s.cfg.MesosDNS) })},
		{"/v1/hosts/{host}", s.zoned(mesosDNSHosts)},
		{"/v1/hosts/{host}/ports", plain(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "To be implemented...", http.StatusNotImplemented)
		})},
		{"/v1/services/{service}", s.zoned(mesosDNSServices)},
	}
	if s.cfg.MesosDNS.EnumerationOn {
		out = append(out,
			route{"/v1/enumerate", s.zoned(s.enumerate)},
			route{"/v1/axfr", s.zoned(s.transfer)})
	}
	return out
}

func (s *Server) mesosDNSVersion(w http.ResponseWriter, _ *http.Request) {
	replyOld(w, struct{ Service, URL, Version string }{"Mesos-DNS", "https://github.com/mesosphere/mesos-dns", s.cfg.Version})
}

// mesosDNSHosts lists the addresses of a name, those of version 4 first. One
// object of empty strings is what mesos-dns has for none.
func mesosDNSHosts(w http.ResponseWriter, r *http.Request, v View) {
	name := dottedName(r.PathValue("host"))
	out := []HostAddress{}
	for _, a := range addressesOf(v.Zone, name) {
		out = append(out, HostAddress{Host: name, IP: a.String()})
	}
	if len(out) == 0 {
		out = append(out, HostAddress{})
	}
	replyOld(w, out)
}

// mesosDNSServices lists one address of each family for each record of a
// service; a record whose target has none is left out.
func mesosDNSServices(w http.ResponseWriter, r *http.Request, v View) {
	out := []mesosDNSService{}
	for _, t := range targetsOf(v.Zone, dottedName(r.PathValue("service"))) {
		var before netip.Addr
		for _, a := range addressesOf(v.Zone, t.name) {
			if !before.IsValid() || before.Is4() != a.Is4() {
				out = append(out, mesosDNSService{Service: r.PathValue("service"), Host: t.name, IP: a.String(), Port: t.port})
			}
			before = a
		}
	}
	if len(out) == 0 {
		out = append(out, mesosDNSService{})
	}
	replyOld(w, out)
}

// dottedName is the name that mesos-dns takes the text of a path for.
func dottedName(text string) string {
	name := strings.ReplaceAll(strings.ToLower(text), ".*", "")
	return strings.TrimSuffix(name, ".") + "."
}

func (s *Server) transfer(w http.ResponseWriter, _ *http.Request, v View) {
	c := s.cfg.MesosDNS
	t := Transfer{
		TTL: c.TTL, Serial: v.Zone.Serial(), RefreshSeconds: c.RefreshSeconds,
		Mname: c.SOAMname, Rname: c.SOARname, Domain: c.Domain,
	}
	t.Records.As, t.Records.AAAAs, t.Records.SRVs = map[string][]string{}, map[string][]string{}, map[string][]string{}
	of := map[string]map[string][]string{"A": t.Records.As, "AAAA": t.Records.AAAAs, "SRV": t.Records.SRVs}
	for _, r := range v.Zone.Records() {
		if names, ok := of[r.Type]; ok && s.inDomain(r.Name) {
			names[r.Name] = append(names[r.Name], listed(r).Host)
		}
	}
	for _, names := range of {
		for _, list := range names {
			slices.Sort(list)
		}
	}
	replyOld(w, t)
}

// inDomain reports whether name is in the domain of mesos-dns' names, or that
// of the name server, which mesos-dns lists too.
func (s *Server) inDomain(name string) bool {
	return strings.HasSuffix(name, "."+s.cfg.MesosDNS.Domain+".") || name == s.cfg.MesosDNS.SOAMname
}

// enumerate lists a record under each of the tasks that give it, and frameworks
// that run nothing too.
func (s *Server) enumerate(w http.ResponseWriter, _ *http.Request, v View) {
	frameworks := map[string]*EnumeratedFramework{} // by id
	for id, f := range v.Snapshot.Frameworks.All() {
		frameworks[id] = &EnumeratedFramework{Name: f.Name, Tasks: []EnumeratedTask{}}
	}
	for _, app := range v.Snapshot.Apps.All() {
		for _, t := range app.Tasks {
			if t.State != model.Running {
				continue
			}
			f := frameworks[t.Key.FrameworkID]
			if f == nil {
				f = &EnumeratedFramework{Name: t.Framework}
				frameworks[t.Key.FrameworkID] = f
			}
			f.Tasks = append(f.Tasks, s.enumerated(v, app, t))
		}
	}
	out := Enumeration{Frameworks: []EnumeratedFramework{}}
	for _, id := range slices.Sorted(maps.Keys(frameworks)) {
		f := frameworks[id]
		slices.SortFunc(f.Tasks, func(a, b EnumeratedTask) int { return strings.Compare(a.Name+" "+a.ID, b.Name+" "+b.ID) })
		out.Frameworks = append(out.Frameworks, *f)
	}
	slices.SortStableFunc(out.Frameworks, func(a, b EnumeratedFramework) int { return strings.Compare(a.Name, b.Name) })
	replyOld(w, out)
}

func (s *Server) enumerated(v View, app *model.App, t *model.Task) EnumeratedTask {
	e := EnumeratedTask{Name: t.Name, ID: t.Key.ID, Records: []ListedRecord{}}
	records, _ := v.Zone.TaskRecords(app, t)
	for _, r := range records {
		if s.inDomain(r.Name) && listable(r.Type) {
			e.Records = append(e.Records, listed(r))
		}
	}
	return e
}

func listable(kind string) bool { return kind == "A" || kind == "AAAA" || kind == "SRV" }

// listed is r as /v1 lists it.
func listed(r dns.Record) ListedRecord {
	l := ListedRecord{Name: r.Name, Host: r.Data, RType: r.Type}
	if t, ok := targetOf(r); ok {
		l.Host = t.name + ":" + t.port
	}
	return l
}
