package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// oldKey is a setting of another daemon: the keys of ours that it became, or why
// it has none.
type oldKey struct {
	name string
	ours []string
	why  string
}

// mesosDNSKeys are those of mesos-dns' config.json, in its own letter case.
var mesosDNSKeys = []oldKey{
	{"zk", []string{"mesos.zk"}, ""},
	{"masters", []string{"mesos.masters"}, ""},
	{"refreshSeconds", nil, "nothing is polled: changes are streamed as they happen"},
	{"ttl", []string{"dns.ttl", "dns.soa.minimum"}, ""},
	{"domain", []string{"dns.domain"}, ""},
	{"port", []string{"dns.listen"}, ""},
	{"listener", []string{"dns.listen"}, ""},
	{"HTTPListener", []string{"http.listen"}, ""},
	{"httpport", []string{"http.listen"}, ""},
	{"dnson", nil, "DNS is always on"},
	{"httpon", []string{"http.listen"}, ""},
	{"externalon", []string{"dns.forward.on"}, ""},
	{"resolvers", []string{"dns.forward.upstreams"}, ""},
	{"zoneResolvers", []string{"dns.forward.zones"}, ""},
	{"timeout", nil, "dns.forward.timeout bounds a question as a whole; upstreams are measured, not waited for in turn"},
	{"recurseon", nil, "the RA bit says what is so: set where dns.forward.on is"},
	{"stateTimeoutSeconds", nil, "the state is a stream, with a heartbeat"},
	{"zkDetectionTimeout", nil, "a lost leader ends nothing: what was known last is served, its age is a metric"},
	{"IPSources", []string{"dns.ip_sources", "dns.exact"}, ""},
	{"EnforceRFC952", []string{"dns.rfc952"}, ""},
	{"SetTruncateBit", nil, "an answer that was cut always says so"},
	{"srvRecordDefaultWeight", []string{"dns.srv_weight"}, ""},
	{"SOAMname", []string{"dns.soa.mname"}, ""},
	{"SOARname", []string{"dns.soa.rname"}, ""},
	{"SOARefresh", []string{"dns.soa.refresh"}, ""},
	{"SOARetry", []string{"dns.soa.retry"}, ""},
	{"SOAExpire", []string{"dns.soa.expire"}, ""},
	{"SOAMinttl", nil, "mesos-dns ignores it and uses ttl"},
	{"SOASerial", nil, "the serial counts changes"},
	{"mesosHTTPSOn", []string{"mesos.https"}, ""},
	{"mesosAuthentication", []string{"mesos.auth.credentials_file", "mesos.auth.service_account_file"}, ""},
	{"mesosCredentials", []string{"mesos.auth.credentials_file"}, ""},
	{"iamConfigFile", []string{"mesos.auth.service_account_file"}, ""},
	{"caCertFile", []string{"mesos.tls.ca_file", "mesos.tls.verify"}, ""},
	{"certFile", []string{"mesos.tls.cert_file"}, ""},
	{"keyFile", []string{"mesos.tls.key_file"}, ""},
	{"EnumerationOn", []string{"http.enumerate"}, ""},
}

// dcosDNSKeys are those of DC/OS' dcos-dns.json.
var dcosDNSKeys = []oldKey{
	{"upstream_resolvers", []string{"dns.forward.upstreams"}, ""},
	{"udp_port", []string{"dns.listen", "dns.addresses"}, ""},
	{"tcp_port", []string{"dns.listen", "dns.addresses"}, ""},
	{"forward_zones", []string{"dns.forward.zones"}, ""},
	{"bind_ips", []string{"dns.listen", "dns.addresses"}, ""},
	{"bind_interface", []string{"dns.listen"}, ""},
	{"bind_ip_blacklist", []string{"dns.listen", "dns.addresses"}, ""},
}

// dcosVariables are those of DC/OS' environment that concern us.
var dcosVariables = []oldKey{
	{"MASTER_SOURCE", []string{"mesos.zk"}, ""},
	{"EXHIBITOR_ADDRESS", []string{"mesos.zk"}, ""},
	{"EXHIBITOR_URI", []string{"mesos.zk"}, ""},
	{"MASTER_LIST_FILE", []string{"mesos.zk"}, ""},
}

// became is one setting of another daemon, and what it is here.
type became struct {
	Old   string     `json:"old"`
	Value string     `json:"value"`
	Keys  []keyValue `json:"keys"` // empty where it has no meaning here
	Why   string     `json:"why,omitempty"`
}

// migration is what a configuration of another daemon became.
type migration struct {
	Kind     string   `json:"kind"` // mesos-dns, dcos-dns.json or the environment of DC/OS
	Settings []became `json:"settings"`
	// Ours are all keys that are not as without a configuration.
	Ours []keyValue `json:"ours"`
}

// readForeign lays the configuration of another daemon over cfg; ok is false for
// a text that is none.
func readForeign(text []byte, name string, cfg *fileConfig) (kind string, old []oldKey, given map[string]string, ok bool, err error) {
	given = map[string]string{}
	if vars, is := readEnvironment(string(text)); is {
		return "the environment of DC/OS", dcosVariables, vars, true, readDCOSEnvironment(vars, cfg)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return "", nil, nil, false, nil
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal(text, &raw) == nil { // else the reader says what is wrong, and where
		for k, v := range raw {
			given[k] = strings.Join(strings.Fields(string(v)), " ")
		}
	}
	if isDCOSDNS(text) {
		return "dcos-dns.json", dcosDNSKeys, given, true, readDCOSDNS(text, cfg)
	}
	return "mesos-dns", mesosDNSKeys, given, true, readMesosDNS(text, name, cfg)
}

// migrate reads the configuration of another daemon and tells what became of it.
func (f *configFlags) migrate(path string) (migration, fileConfig, error) {
	cfg := defaultFileConfig()
	text, err := os.ReadFile(path)
	if err != nil {
		return migration{}, cfg, fmt.Errorf("read configuration: %w", err)
	}
	kind, old, given, ok, err := readForeign(text, path, &cfg)
	switch {
	case !ok:
		return migration{}, cfg, fmt.Errorf("configuration %s: neither a config.json of mesos-dns, nor DC/OS' dcos-dns.json or environment", path)
	case err != nil:
		return migration{}, cfg, fmt.Errorf("configuration %s: %w", path, err)
	}
	m := migration{Kind: kind, Settings: []became{}}
	is := map[string]string{}
	before := f.values(defaultFileConfig())
	for i, kv := range f.values(cfg) {
		is[kv.Key] = kv.Value
		if kv != before[i] {
			m.Ours = append(m.Ours, kv)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		b := became{Old: name, Value: shown(name, given[name]), Keys: []keyValue{}, Why: "unknown to " + kind + ", and to us"}
		for _, k := range old {
			if strings.EqualFold(k.name, name) {
				b.Why = k.why
				for _, key := range k.ours {
					b.Keys = append(b.Keys, keyValue{key, is[key]})
				}
			}
		}
		m.Settings = append(m.Settings, b)
	}
	return m, cfg, cfg.check()
}

// shown is the value of an old setting, without what is secret.
func shown(name, value string) string {
	if strings.Contains(strings.ToLower(name), "credential") {
		return "(not shown)"
	}
	if strings.EqualFold(name, "zk") {
		return zkURL(strings.Trim(value, `"`)).String()
	}
	return strings.Trim(value, `"`)
}

// print writes m for people.
func (m migration) print(w io.Writer) error {
	var rows [][]string
	for _, b := range m.Settings {
		first := []string{b.Old, b.Value}
		if len(b.Keys) == 0 {
			rows = append(rows, append(first, "-", b.Why))
		}
		for _, kv := range b.Keys {
			rows = append(rows, append(first, kv.Key, kv.Value))
			first = []string{"", ""}
		}
	}
	fmt.Fprintf(w, "Read as %s.\n\n", m.Kind)
	if err := writeTable(w, []string{"OLD", "VALUE", "BECAME", "VALUE OR WHY NOT"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nAll that differs from waggle's own defaults:\n\n")
	rows = nil
	for _, kv := range m.Ours {
		rows = append(rows, []string{kv.Key, kv.Value})
	}
	return writeTable(w, []string{"KEY", "VALUE"}, rows)
}

// writeYAML writes the keys of cfg that differ from the defaults as a
// configuration file, secrets and all.
func (f *configFlags) writeYAML(w io.Writer, cfg fileConfig) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	is, without := reflect.ValueOf(cfg), reflect.ValueOf(defaultFileConfig())
	for _, k := range f.keys {
		v := is.FieldByIndex(k.field).Interface()
		if reflect.DeepEqual(v, without.FieldByIndex(k.field).Interface()) {
			continue
		}
		at := root
		words := strings.Split(k.name, ".")
		for _, word := range words[:len(words)-1] {
			at = below(at, word)
		}
		value := new(yaml.Node)
		if err := value.Encode(v); err != nil {
			return fmt.Errorf("write %s: %w", k.name, err)
		}
		at.Content = append(at.Content, scalar(words[len(words)-1]), value)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(root), enc.Close())
}

func scalar(text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: text} }

// below returns the mapping that is at key in m, made if it is not there.
func below(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	child := &yaml.Node{Kind: yaml.MappingNode}
	m.Content = append(m.Content, scalar(key), child)
	return child
}
