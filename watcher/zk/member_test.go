package zk

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/internal/outside"
)

func TestTheSmallestNumberLeads(t *testing.T) {
	var got []string
	for _, c := range candidates([]string{
		"json.info_0000000012", "log_replicas", "info_0000000003", "json.info_-2147483648", "0000000007",
		"json.info_-000000001", "json.info_99999999999", "lock_0000000001", "json.info_", "x", "",
	}) {
		got = append(got, c.node)
	}
	want := []string{"json.info_-2147483648", "json.info_-000000001", "info_0000000003", "0000000007", "json.info_0000000012"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMembersAreReadInEveryForm(t *testing.T) {
	for _, tt := range []struct {
		name, node, data string
		want             Member
	}{
		{"the address first", "json.info_0000000001",
			`{"address":{"hostname":"a","ip":"10.1.1.9","port":5051},"hostname":"m1","id":"x","ip":1,"pid":"master@10.1.1.8:5050","port":5050}`,
			Member{Addr: "10.1.1.9:5051", Hostname: "m1", ID: "x"}},
		{"then the libprocess address", "json.info_0000000001", `{"hostname":"m1","ip":1,"pid":"master@[2001:db8::1]:5050"}`,
			Member{Addr: "[2001:db8::1]:5050", Hostname: "m1"}},
		{"then the number", "json.info_0000000001", `{"hostname":"m1","ip":151060746,"port":5055}`, Member{Addr: "10.1.1.9:5055", Hostname: "m1"}},
		{"the name last, with the usual port", "json.info_0000000001", `{"hostname":"m1"}`, Member{Addr: "m1:5050", Hostname: "m1"}},
		{"text", "0000000001", "master@10.0.0.1:5050\n", Member{Addr: "10.0.0.1:5050"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, _, ok := parseNode(tt.node)
			if !ok {
				t.Fatal("no node of a member")
			}
			got, err := parseMember(tt.node, f, []byte(tt.data))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Node = tt.node
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	for node, data := range map[string]string{
		"json.info_0000000001": `{"port":5050}`, "info_0000000001": "\x0a\xff", "0000000001": "10.0.0.1:5050",
		"json.info_0000000002": "", "info_0000000002": "", "0000000002": "master@host",
	} {
		f, _, _ := parseNode(node)
		if m, err := parseMember(node, f, []byte(data)); err == nil || !strings.Contains(err.Error(), node) {
			t.Errorf("%s %q: got %+v, %v", node, data, m, err)
		}
	}
}

func TestRecordedNodesAreRead(t *testing.T) {
	for path, want := range map[string]Member{
		"upstream/zk/json.info-mesos-1.0.1.json":                           {},
		"upstream/zk/json.info-mesos-1.4.0.json":                           {},
		"upstream/zk/json.info-mesos-1.6.0.json":                           {Addr: "10.1.1.9:5050", Hostname: "10.1.1.9", ID: "96e29ec4-9c04-4ed7-b72e-9016a64f4903"},
		"upstream/zk/json.info-mesos-1.12-adapted.json":                    {},
		"upstream/synthetic/info_0000000001.pb":                            {},
		"mesos-1.12/zk_3masters_before/mesos__json.info_0000000002.bin":    {Addr: "127.0.0.3:5050", Hostname: "127.0.0.3"},
		"mesos-1.12/zk_sigkill_new_leader/mesos__json.info_0000000003.bin": {Addr: "127.0.0.2:5050", Hostname: "127.0.0.2"},
	} {
		f := formJSON
		if filepath.Ext(path) == ".pb" {
			f = formProtobuf
		}
		got, err := parseMember("node", f, outside.Read(t, "fixtures", path))
		if err != nil || got.Addr == "" || got.ID == "" {
			t.Errorf("%s: %+v, %v", path, got, err)
			continue
		}
		if want.Addr == "" {
			continue
		}
		want.Node = "node"
		if want.ID == "" {
			want.ID = got.ID
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
}

// FuzzMember: whatever a node holds, it is a member with an address or an error.
func FuzzMember(f *testing.F) {
	f.Add("json.info_0000000001", []byte(`{"address":{"ip":"10.0.0.1","port":5050}}`))
	f.Add("info_0000000001", []byte("\x0a\x01x\x10\x8a\x82\x84\x48\x18\xba\x27\x22\x15master@10.0.0.1:5050\x3a\x02\x12\x00"))
	f.Add("0000000001", []byte("master@10.0.0.1:5050"))
	f.Fuzz(func(t *testing.T, node string, data []byte) {
		form, _, ok := parseNode(node)
		if !ok {
			return
		}
		m, err := parseMember(node, form, data)
		if (err == nil) != (m.Addr != "") {
			t.Fatalf("%+v, %v", m, err)
		}
	})
}
