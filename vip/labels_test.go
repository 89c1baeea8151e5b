package vip

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waggle/model"
)

func TestLabelValues(t *testing.T) {
	addr := netip.MustParseAddr
	for _, tt := range []struct {
		name, value string
		want        label // without value and weight
		err         string
	}{
		{name: "a name", value: "/web:80", want: label{left: "/web", name: "web", port: 80}},
		{name: "a name without the slash", value: "web:80", want: label{left: "web", name: "web", port: 80}},
		{name: "a name with a space before it", value: " /web:80", want: label{left: " /web", name: "web", port: 80}},
		{name: "slashes go, dots stay", value: "/group/sub/web.x:80", want: label{left: "/group/sub/web.x", name: "groupsubweb.x", port: 80}},
		{name: "a name of digits", value: "/123:80", want: label{left: "/123", name: "123", port: 80}},
		{name: "a name that only contains an address", value: "/v1.2.3:80", want: label{left: "/v1.2.3", name: "v1.2.3", port: 80}},
		{name: "the last colon splits", value: "/a:b:80", want: label{left: "/a:b", name: "ab", port: 80}},
		{name: "a port with a leading zero", value: "/web:080", want: label{left: "/web", name: "web", port: 80}},
		{name: "a port with a plus sign", value: "/web:+80", want: label{left: "/web", name: "web", port: 80}},
		{name: "the last port", value: "/web:65535", want: label{left: "/web", name: "web", port: 65535}},
		{name: "an IPv4 address", value: "10.1.2.3:80", want: label{left: "10.1.2.3", addr: addr("10.1.2.3"), port: 80}},
		{name: "a slash means nothing before an address either", value: "/10.1.2.3:80", want: label{left: "/10.1.2.3", addr: addr("10.1.2.3"), port: 80}},
		{name: "an IPv6 address", value: "fd01:c::1:8080", want: label{left: "fd01:c::1", addr: addr("fd01:c::1"), port: 8080}},
		{name: "an IPv6 address in brackets", value: "[fd01::1]:80", want: label{left: "[fd01::1]", addr: addr("fd01::1"), port: 80}},
		{name: "the loopback address", value: "::1:80", want: label{left: "::1", addr: addr("::1"), port: 80}},
		{name: "a mapped address is the IPv4 one", value: "[::ffff:1.2.3.4]:80", want: label{left: "[::ffff:1.2.3.4]", addr: addr("1.2.3.4"), port: 80}},

		{name: "no port", value: "/web", err: "no :port at the end"},
		{name: "nothing", value: "", err: "no :port at the end"},
		{name: "an empty port", value: "/web:", err: `port "" is not a number within 1 to 65535`},
		{name: "port zero", value: "/web:0", err: `port "0" is not a number within 1 to 65535`},
		{name: "a negative port", value: "/web:-1", err: `port "-1" is not a number within 1 to 65535`},
		{name: "a port too high", value: "/web:65536", err: `port "65536" is not a number within 1 to 65535`},
		{name: "a port beyond all numbers", value: "/web:99999999999999999999", err: `port "99999999999999999999" is not a number within 1 to 65535`},
		{name: "a port by name", value: "/web:http", err: `port "http" is not a number within 1 to 65535`},
		{name: "a port with a space", value: "/web: 80", err: `port " 80" is not a number within 1 to 65535`},
		{name: "a range of ports", value: "/web:80-90", err: `port "80-90" is not a number within 1 to 65535`},
		{name: "a list of ports", value: "/web:80,81", err: `port "80,81" is not a number within 1 to 65535`},

		{name: "no name", value: ":80", err: `name "" has no ASCII letter or digit`},
		{name: "a slash for a name", value: "/:80", err: `name "/" has no ASCII letter or digit`},
		{name: "a name that nothing is left of", value: "/é-:80", err: `name "/é-" has no ASCII letter or digit`},

		{name: "a short address", value: "1.2.3:80", err: `"1.2.3" is not an IPv4 address and too like one for a name`},
		{name: "an octet too high", value: "256.1.1.1:80", err: `"256.1.1.1" is not an IPv4 address and too like one for a name`},
		{name: "an octet with a leading zero", value: "/01.2.3.4:80", err: `"01.2.3.4" is not an IPv4 address and too like one for a name`},
		{name: "an address with a mask", value: "10.1.2.3/24:80", err: `"10.1.2.3/24" is a network, not an address`},
		{name: "a scheme", value: "tcp://web:80", err: `"tcp://web" has a scheme, which only task labels like vip_port0 have`},
		{name: "an IPv6 address without a port", value: "fd01:c::1", err: `"fd01:c:" is not an IPv6 address and too like one for a name`},
		{name: "an IPv6 address too long", value: "1:2:3:4:5:6:7:8:9:80", err: `"1:2:3:4:5:6:7:8:9" is not an IPv6 address and too like one for a name`},
		{name: "an open bracket", value: "[fd01::1:80", err: `"[fd01::1" is not an IPv6 address in brackets`},
		{name: "IPv4 in brackets", value: "[10.1.2.3]:80", err: `"[10.1.2.3]" is not an IPv6 address in brackets`},
		{name: "a zone", value: "fe80::1%eth0:80", err: "address fe80::1%eth0 has a zone, which means something on one machine only"},
		{name: "the unspecified address", value: "0.0.0.0:80", err: "address 0.0.0.0 is not one of a single machine"},
		{name: "the mapped unspecified address", value: "[::ffff:0.0.0.0]:80", err: "address 0.0.0.0 is not one of a single machine"},
		{name: "a multicast address", value: "ff02::1:80", err: "address ff02::1 is not one of a single machine"},
		{name: "the broadcast address", value: "255.255.255.255:80", err: "address 255.255.255.255 is not one of a single machine"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseLabel(tt.value)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("%q: %+v and error %v, want error %q", tt.value, got, err, tt.err)
				}
				return
			}
			tt.want.value, tt.want.weight = tt.value, 1
			if err != nil || got != tt.want {
				t.Errorf("%q: %+v, %v, want %+v", tt.value, got, err, tt.want)
			}
		})
	}
}

func TestLabelKeys(t *testing.T) {
	type key struct {
		base, option string
		ok           bool
	}
	for k, want := range map[string]key{
		"VIP_0":          {"VIP_0", "", true},
		"vip_0":          {"vip_0", "", true},
		"VIP":            {"VIP", "", true},
		"vip0":           {"vip0", "", true},
		"VIPER":          {"VIPER", "", true},
		"VIP_-1":         {"VIP_-1", "", true},
		"VIP_d8c3-f5e8":  {"VIP_d8c3-f5e8", "", true},
		"VIP_WEIGHTS":    {"VIP_WEIGHTS", "", true},
		"VIP_0_WEIGHT":   {"VIP_0", "WEIGHT", true},
		"vip_0_weight":   {"vip_0", "WEIGHT", true},
		"VIP_WEIGHT":     {"VIP", "WEIGHT", true},
		"VIP_a_b_DRAIN":  {"VIP_a_b", "DRAIN", true},
		"VIP_0_AFFINITY": {"VIP_0", "AFFINITY", true},
		"VIP_0_LOCALITY": {"VIP_0", "LOCALITY", true},
		"Vip_0":          {},
		"vIP_0":          {},
		"MY_VIP_0":       {},
		"WEIGHT":         {},
		"":               {},
	} {
		base, option, ok := parseKey(k)
		if got := (key{base, option, ok}); got != want {
			t.Errorf("%q: %+v, want %+v", k, got, want)
		}
	}
}

// FuzzLabel feeds one label to a port and to its task.
func FuzzLabel(f *testing.F) {
	for _, s := range []string{
		"/web:80", "10.0.0.1:1", "[::1]:2", "fd01::1:3", ":", "::", "tcp://x:1", "/été:80", "a:b:c:99999", "[]:1", "1.2.3:4", "[::1%a]:1",
	} {
		f.Add("VIP_0", s)
	}
	f.Add("vip_port0", "tcp://web:80")
	f.Add("VIP_PORT18446744073709551615", "udp://web:80")
	f.Add("VIP_0_WEIGHT", "1000")
	f.Fuzz(func(t *testing.T, key, value string) {
		labels := []model.Label{{Key: key, Value: value}}
		task := &model.Task{
			Key: model.TaskKey{ID: "t"}, Labels: labels,
			Resources: []model.PortRange{{First: 1, Last: 0}, {First: 5, Last: 6}},
			Ports:     []model.Port{{Proto: model.TCP, Number: 1, Labels: labels}},
		}
		ports, problems := Ports(task)
		for _, p := range ports {
			for _, l := range p.labels {
				if l.port == 0 || l.weight == 0 || (l.name == "") != l.addr.IsValid() || FoldName(l.name) != l.name || l.addr.Is4In6() {
					t.Errorf("%q %q: read as %+v", key, value, l)
				}
			}
		}
		for _, p := range problems {
			if p.Task != "t" || p.Field != key || p.Value != value || p.Error == "" {
				t.Errorf("%q %q: problem %+v does not name the label", key, value, p)
			}
		}
	})
}

func TestPorts(t *testing.T) {
	onAgent := []model.Address{{Addr: netip.MustParseAddr("10.0.0.1")}}
	inside := []model.Address{{Addr: netip.MustParseAddr("9.0.0.1")}}
	resources := []model.PortRange{{First: 9000, Last: 9001}, {First: 7, Last: 6}, {First: 31000, Last: 31000}, {First: 0, Last: 0}}
	port := model.Port{Name: "a", Proto: model.TCP, Number: 9001}
	type vips struct {
		Port model.Port // without labels
		VIPs []string
		Read []string // "left weight" of what could be read
	}
	for _, tt := range []struct {
		name     string
		addrs    []model.Address
		labels   string // of the port: "key=value key=value"
		task     string // of the task
		mappings []model.PortMapping
		want     []vips
		problems []string // "key=value: error"
	}{
		{name: "a port without VIP labels is listed", labels: "network-scope=host Vip_0=/c:80 MY_VIP=/d:80", want: []vips{{Port: port}}},
		{name: "labels in their order", labels: "VIP_1=/b:80 vip_0=/a:80 VIPER=/d:80",
			want: []vips{{port, []string{"/b:80", "/a:80", "/d:80"}, []string{"/b 1", "/a 1", "/d 1"}}}},
		{name: "a bad label is shown and costs only itself", labels: "VIP_0=/a:0 VIP_1=/b:80",
			want:     []vips{{port, []string{"/a:0", "/b:80"}, []string{"/b 1"}}},
			problems: []string{`VIP_0=/a:0: port "0" is not a number within 1 to 65535`}},
		{name: "a weight belongs to the label it stands beside", labels: "VIP_0_WEIGHT=7 VIP_0=/a:80 VIP_1=/b:80",
			want: []vips{{port, []string{"/a:80", "/b:80"}, []string{"/a 7", "/b 1"}}}},
		{name: "in either letter case", labels: "VIP_0_WEIGHT=7 vip_0=/a:80 VIP_1=/b:80 vip_1_weight=1000",
			want: []vips{{port, []string{"/a:80", "/b:80"}, []string{"/a 7", "/b 1000"}}}},
		{name: "a bad weight leaves the VIP", labels: "VIP_0=/a:80 VIP_0_WEIGHT=-1",
			want:     []vips{{port, []string{"/a:80"}, []string{"/a 1"}}},
			problems: []string{"VIP_0_WEIGHT=-1: weight is not a number within 0 to 1000"}},
		{name: "a weight of 0", labels: "VIP_0=/a:80 VIP_0_WEIGHT=0", want: []vips{{port, []string{"/a:80"}, []string{"/a 0"}}}},
		{name: "a weight too high", labels: "VIP_0=/a:80 VIP_0_WEIGHT=1001",
			want:     []vips{{port, []string{"/a:80"}, []string{"/a 1"}}},
			problems: []string{"VIP_0_WEIGHT=1001: weight is not a number within 0 to 1000"}},
		{name: "a weight of nothing", labels: "VIP_0=/a:80 VIP_9_WEIGHT=3",
			want:     []vips{{port, []string{"/a:80"}, []string{"/a 1"}}},
			problems: []string{"VIP_9_WEIGHT=3: there is no VIP label VIP_9 on this port"}},
		{name: "a weight beside a bad label needs no second problem", labels: "VIP_0=/a:0 VIP_0_WEIGHT=3",
			want:     []vips{{port, []string{"/a:0"}, nil}},
			problems: []string{`VIP_0=/a:0: port "0" is not a number within 1 to 65535`}},
		{name: "the other options are not VIPs", labels: "VIP_0=/a:80 VIP_0_DRAIN=3s VIP_0_CHOICE=least-active VIP_0_ALLOW=10.0.0.0/8",
			want: []vips{{port, []string{"/a:80"}, []string{"/a 1"}}}},
		{name: "a bad option leaves the VIP", labels: "VIP_0=/a:80 VIP_0_DRAIN=soon",
			want:     []vips{{port, []string{"/a:80"}, []string{"/a 1"}}},
			problems: []string{`VIP_0_DRAIN=soon: "soon" is not a time within 0s to 720h0m0s, like 90s`}},
		{name: "a name that loses letters is served with a warning", labels: "VIP_0=/été:80",
			want:     []vips{{port, []string{"/été:80"}, []string{"/été 1"}}},
			problems: []string{"VIP_0=/été:80: served as t: only ASCII letters and digits can be in a name"}},

		{name: "a task label joins the port of that number", addrs: onAgent, labels: "VIP_0=/a:80", task: "vip_PORT1=tcp://b:53",
			want: []vips{{port, []string{"/a:80", "b:53"}, []string{"/a 1", "b 1"}}}},
		{name: "a task label of the other protocol makes a port", addrs: onAgent, task: "VIP_PORT1=UDP://b:53",
			want: []vips{{Port: port}, {model.Port{Proto: model.UDP, Number: 9001}, []string{"b:53"}, []string{"b 1"}}}},
		{name: "its index runs through the ranges", addrs: onAgent, task: "vip_port2=tcp://b:53",
			want: []vips{{Port: port}, {model.Port{Proto: model.TCP, Number: 31000}, []string{"b:53"}, []string{"b 1"}}}},
		{name: "in a container the resource is the agent's port", addrs: inside, task: "vip_port1=tcp://b:53",
			want: []vips{{Port: port}, {model.Port{Proto: model.TCP, HostPort: 9001}, []string{"b:53"}, []string{"b 1"}}}},
		{name: "which a mapping leads on", addrs: inside, task: "vip_port0=tcp://b:53",
			mappings: []model.PortMapping{{HostPort: 9000, ContainerPort: 53, Proto: model.UDP}, {HostPort: 9000, ContainerPort: 80, Proto: model.TCP}},
			want:     []vips{{Port: port}, {model.Port{Proto: model.TCP, Number: 80, HostPort: 9000}, []string{"b:53"}, []string{"b 1"}}}},
		{name: "two task labels share the port they made", addrs: inside, task: "vip_port0=tcp://b:53 VIP_PORT0=tcp://c:53",
			want: []vips{{Port: port}, {model.Port{Proto: model.TCP, HostPort: 9000}, []string{"b:53", "c:53"}, []string{"b 1", "c 1"}}}},
		{name: "an index past the end costs only that VIP", addrs: onAgent, labels: "VIP_0=/a:80", task: "vip_port4=tcp://b:53",
			want:     []vips{{port, []string{"/a:80"}, []string{"/a 1"}}},
			problems: []string{"vip_port4=tcp://b:53: the task has no port resource of index 4"}},
		{name: "port 0 is no port", addrs: onAgent, task: "vip_port3=tcp://b:53", want: []vips{{Port: port}},
			problems: []string{"vip_port3=tcp://b:53: the task has no port resource of index 3"}},
		{name: "an unknown scheme", task: "vip_port0=http://b:53", want: []vips{{Port: port}},
			problems: []string{"vip_port0=http://b:53: value does not start with tcp:// or udp://"}},
		{name: "an index that is none", task: "vip_portx=tcp://b:53", want: []vips{{Port: port}},
			problems: []string{"vip_portx=tcp://b:53: what follows vip_port in the key is not the index of a port resource"}},
		{name: "a bad value in a task label", addrs: onAgent, task: "vip_port1=tcp://b", want: []vips{{port, []string{"b"}, nil}},
			problems: []string{"vip_port1=tcp://b: no :port at the end"}},
		{name: "labels of the task that are none of ours", task: "VIP_0=/a:80 vip_portal=open vip_port=80", want: []vips{{Port: port}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := &model.Task{
				Key: model.TaskKey{ID: "t.1"}, AgentAddr: onAgent[0].Addr, Addrs: tt.addrs,
				Resources: resources, Mappings: tt.mappings, Labels: parseLabels(tt.task),
			}
			p := port
			p.Labels = parseLabels(tt.labels)
			task.Ports = []model.Port{p}

			ports, problems := Ports(task)
			var got []vips
			for _, p := range ports {
				v := vips{Port: p.Port, VIPs: p.VIPs}
				v.Port.Labels = nil
				for _, l := range p.labels {
					v.Read = append(v.Read, l.left+" "+strconv.Itoa(int(l.weight)))
				}
				got = append(got, v)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("ports (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.problems, problemLines(problems, "t.1")); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

// parseLabels reads "key=value key=value".
func parseLabels(s string) []model.Label {
	var out []model.Label
	for pair := range strings.FieldsSeq(s) {
		k, v, _ := strings.Cut(pair, "=")
		out = append(out, model.Label{Key: k, Value: v})
	}
	return out
}

// problemLines renders problems; those of other tasks than task with its id.
func problemLines(problems []model.Problem, task string) []string {
	var out []string
	for _, p := range problems {
		line := p.Field + "=" + p.Value + ": " + p.Error
		if p.Task != task {
			line = p.Task + " " + line
		}
		out = append(out, line)
	}
	return out
}
