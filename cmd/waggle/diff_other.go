package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"waggle/api"
)

// other is what another daemon says it has, over HTTP.
type other struct {
	sources []string // the URLs that told
	names   []string
	vips    map[string][]string // nil if it shows none: backends by "name:port/protocol"
}

// askOther reads what the interfaces at bases show. Those that do not answer are
// left out: which there are depends on what the other is.
func askOther(ctx context.Context, bases []string) other {
	var o other
	for _, base := range bases {
		for path, read := range map[string]func([]byte) error{
			"/v1/axfr": o.readAXFR, "/v1/enumerate": o.readEnumerate, "/v1/records": o.readRecords, "/v1/vips": o.readVIPs,
		} {
			text, err := fetch(ctx, strings.TrimSuffix(base, "/")+path)
			if err == nil && read(text) == nil {
				o.sources = append(o.sources, base+path)
			}
		}
	}
	slices.Sort(o.sources)
	return o
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 256<<20))
}

// readAXFR reads mesos-dns' whole zone.
func (o *other) readAXFR(text []byte) error {
	var doc struct {
		Records struct {
			As, AAAAs, SRVs map[string][]string
		}
	}
	err := json.Unmarshal(text, &doc)
	for _, m := range []map[string][]string{doc.Records.As, doc.Records.AAAAs, doc.Records.SRVs} {
		o.names = append(o.names, slices.Collect(maps.Keys(m))...)
	}
	return err
}

// readEnumerate reads mesos-dns' records by framework and task.
func (o *other) readEnumerate(text []byte) error {
	var doc struct {
		Frameworks []struct {
			Tasks []struct {
				Records []struct{ Name string }
			}
		}
	}
	err := json.Unmarshal(text, &doc)
	for _, f := range doc.Frameworks {
		for _, t := range f.Tasks {
			for _, r := range t.Records {
				o.names = append(o.names, r.Name)
			}
		}
	}
	return err
}

// readRecords reads the records of DC/OS' daemon.
func (o *other) readRecords(text []byte) error {
	var list []struct{ Name string }
	err := json.Unmarshal(text, &list)
	for _, r := range list {
		o.names = append(o.names, r.Name)
	}
	return err
}

// readVIPs reads the VIPs of DC/OS' daemon.
func (o *other) readVIPs(text []byte) error {
	var list []struct {
		VIP, Protocol string
		Backend       []struct {
			IP   string
			Port uint16
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	if o.vips == nil {
		o.vips = map[string][]string{}
	}
	for _, v := range list {
		key := v.VIP + "/" + v.Protocol
		o.vips[key] = []string{}
		for _, b := range v.Backend {
			o.vips[key] = append(o.vips[key], b.IP+" port "+strconv.Itoa(int(b.Port)))
		}
	}
	return nil
}

// ourNames are those of the daemon behind the socket.
func ourNames(cmd *cobra.Command, a *asker) (map[string]bool, error) {
	var records []api.Record
	if err := a.get(cmd, "/v2/records", &records); err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, r := range records {
		if r.Type == "A" || r.Type == "AAAA" || r.Type == "SRV" {
			out[r.Name] = true
		}
	}
	return out, nil
}

// ourVIPs are those of the daemon behind the socket, as DC/OS' shows them.
func ourVIPs(cmd *cobra.Command, a *asker) (map[string][]string, error) {
	var list []api.VIP
	if err := a.get(cmd, "/v2/vips", &list); err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, v := range list {
		name := strings.TrimSuffix(v.Name, ".")
		if name == "" {
			name = v.Address.String()
		}
		key := fmt.Sprintf("%s:%d/%s", name, v.Port, v.Protocol)
		out[key] = []string{}
		for _, b := range v.Backends {
			if b.Weight > 0 {
				out[key] = append(out[key], b.Address.String()+" port "+strconv.Itoa(int(b.Port)))
			}
		}
	}
	return out, nil
}

// compareVIPs returns the VIPs whose backends differ, sorted by name.
func compareVIPs(ours, theirs map[string][]string) []difference {
	all := maps.Clone(ours)
	maps.Copy(all, theirs)
	said := func(m map[string][]string, key string) []string {
		list, ok := m[key]
		if !ok {
			return []string{"no such VIP"}
		}
		if len(list) == 0 {
			return []string{"no backend"}
		}
		list = slices.Clone(list)
		slices.Sort(list)
		return slices.Compact(list)
	}
	var out []difference
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if a, b := said(ours, key), said(theirs, key); !slices.Equal(a, b) {
			out = append(out, difference{key, "VIP", a, b})
		}
	}
	return out
}
