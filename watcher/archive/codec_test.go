package archive

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waggle/model"
)

// fill gives every exported field below v a random value, so that a field that
// is new in the model and does not come back from the disk fails a test.
func fill(rnd *rand.Rand, v reflect.Value) {
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(randomAddr(rnd)))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.AddrPortFrom(randomAddr(rnd), uint16(rnd.Uint32()))))
		return
	case model.TaskState:
		v.SetUint(uint64(rnd.IntN(int(model.Terminal) + 1)))
		return
	case model.Health:
		v.SetUint(uint64(rnd.IntN(int(model.Unhealthy) + 1)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(strings.Repeat("x", rnd.IntN(3)) + fmt.Sprint(rnd.IntN(1000)))
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(rnd.Int64() - rnd.Int64())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rnd.Uint64())
	case reflect.Float64:
		v.SetFloat(rnd.Float64())
	case reflect.Slice:
		for range rnd.IntN(4) {
			e := reflect.New(v.Type().Elem()).Elem()
			fill(rnd, e)
			v.Set(reflect.Append(v, e))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rnd.IntN(4) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(rnd, k)
			fill(rnd, e)
			v.SetMapIndex(k, e)
		}
	case reflect.Pointer:
		if rnd.IntN(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(rnd, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(rnd, v.Field(i))
			}
		}
	default:
		panic("fill does not know " + v.Type().String())
	}
}

func randomAddr(rnd *rand.Rand) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	switch rnd.IntN(4) {
	case 0:
		return netip.Addr{}
	case 1:
		return netip.AddrFrom16(b).WithZone("eth0")
	case 2:
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}

func random[T any](rnd *rand.Rand) *T {
	v := new(T)
	fill(rnd, reflect.ValueOf(v).Elem())
	return v
}

// randomApp is an App that keeps the model's promises and is random otherwise.
func randomApp(rnd *rand.Rand, key model.AppKey) *model.App {
	a := random[model.App](rnd)
	a.Key, a.Tasks = key, nil
	for i := range 1 + rnd.IntN(3) {
		t := random[model.Task](rnd)
		t.Key.ID = fmt.Sprintf("%s.%d", key.Name, i)
		a.Tasks = append(a.Tasks, t)
	}
	return a
}

// randomSnapshot fills everything a Snapshot has. Its Groups are the only
// fields that fill cannot.
func randomSnapshot(rnd *rand.Rand, apps int) *model.Snapshot {
	s := &model.Snapshot{}
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		if !strings.HasPrefix(v.Field(i).Type().Name(), "Groups[") {
			fill(rnd, v.Field(i))
		}
	}
	s.Partial = false // what comes back is for whoever restores it to judge
	edit := s.Apps.Edit()
	for i := range apps {
		k := model.AppKey{FrameworkID: fmt.Sprint("F", i%2), Name: fmt.Sprint("app", i)}
		edit.Set(k, randomApp(rnd, k))
	}
	agents, frameworks := s.Agents.Edit(), s.Frameworks.Edit()
	held := s.Held.Edit()
	for i := range rnd.IntN(4) {
		held.Set(fmt.Sprint("S", i), &model.Hold{Since: time.Unix(rnd.Int64N(1e9), 0), Until: time.Unix(rnd.Int64N(1e9), 5)})
		a, f := random[model.Agent](rnd), random[model.Framework](rnd)
		a.ID, f.ID = fmt.Sprint("S", i), fmt.Sprint("F", i)
		agents.Set(a.ID, a)
		frameworks.Set(f.ID, f)
	}
	s.Apps, s.Agents, s.Frameworks, s.Held = edit.Groups(), agents.Groups(), frameworks.Groups(), held.Groups()
	return s
}

// plain turns Groups into maps, for cmp.
func plain[K, V comparable](g model.Groups[K, V]) map[K]V {
	out := map[K]V{}
	for k, v := range g.All() {
		out[k] = v
	}
	return out
}

// sameSnapshot compares whole Snapshots; an empty list is as good as none.
func sameSnapshot(want, got *model.Snapshot) string {
	return cmp.Diff(want, got,
		cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty(),
		cmp.Transformer("apps", plain[model.AppKey, *model.App]),
		cmp.Transformer("agents", plain[string, *model.Agent]),
		cmp.Transformer("held", plain[string, *model.Hold]),
		cmp.Transformer("frameworks", plain[string, *model.Framework]))
}

func encoded(tb testing.TB, s *model.Snapshot, at time.Time) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := encode(&b, s, at); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func decoded(b []byte) (*model.Snapshot, time.Time, error) {
	return decode(bytes.NewReader(b), int64(len(b)))
}

func TestEveryFieldOfASnapshotComesBack(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		want, at := randomSnapshot(rnd, rnd.IntN(6)), time.Unix(int64(seed), 17)
		got, gotAt, err := decoded(encoded(t, want, at))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := sameSnapshot(want, got); d != "" || !gotAt.Equal(at) {
			t.Fatalf("seed %d: %v (-want +got):\n%s", seed, gotAt, d)
		}
	}
}

func TestAFileThatCannotBeTrustedIsRefused(t *testing.T) {
	good := encoded(t, randomSnapshot(rand.New(rand.NewPCG(1, 2)), 20), time.Unix(1, 0))
	for _, tt := range []struct {
		name, want string
		change     func([]byte) []byte
	}{
		{"an empty file", "too few", func([]byte) []byte { return nil }},
		{"another program's file", "not a file of ours", func([]byte) []byte { return bytes.Repeat([]byte("PK\x03\x04"), 100) }},
		{"a later version", "version 2, this waggle reads version 1", func(b []byte) []byte { b[len(magic)+3]++; return b }},
		{"a file cut short", "damaged or cut short", func(b []byte) []byte { return b[:len(b)/2] }},
		{"a file without its last byte", "damaged or cut short", func(b []byte) []byte { return b[:len(b)-1] }},
		{"a file with a byte more", "damaged or cut short", func(b []byte) []byte { return append(b, 0) }},
		{"one bit turned in the middle", "damaged or cut short", func(b []byte) []byte { b[len(b)/2] ^= 16; return b }},
		{"one bit turned in the sum", "damaged or cut short", func(b []byte) []byte { b[len(b)-2] ^= 1; return b }},
		{"zeros where a power cut left them", "damaged or cut short", func(b []byte) []byte { clear(b[len(b)/2:]); return b }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap, _, err := decoded(tt.change(slices.Clone(good)))
			if snap != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOneTextIsHeldOnce(t *testing.T) {
	edit := model.Groups[model.AppKey, *model.App]{}.Edit()
	for i := range 50 {
		k := model.AppKey{FrameworkID: "a framework's long id", Name: fmt.Sprint("app", i)}
		edit.Set(k, &model.App{Key: k, Tasks: []*model.Task{{Key: model.TaskKey{FrameworkID: k.FrameworkID, ID: "x"}}}})
	}
	got, _, err := decoded(encoded(t, &model.Snapshot{Apps: edit.Groups()}, time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	copies := map[uintptr]bool{}
	for k, a := range got.Apps.All() {
		copies[data(k.FrameworkID)], copies[data(a.Tasks[0].Key.FrameworkID)] = true, true
	}
	if len(copies) != 1 {
		t.Errorf("%d copies of one framework id", len(copies))
	}
}

func data(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s))) }

// FuzzDecode feeds what stands within the frame, which the sum keeps from
// being anything but ours: a decoder must not fall over it all the same.
func FuzzDecode(f *testing.F) {
	for seed := range uint64(4) {
		b := encoded(f, randomSnapshot(rand.New(rand.NewPCG(seed, 2)), int(seed)), time.Unix(1, 0))
		f.Add(b[frame : len(b)-trailer])
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := decoded(b); err == nil {
			b = b[frame : len(b)-trailer]
		}
		snap, at, err := decodeStream(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, _, err := decoded(encoded(t, snap, at))
		if err != nil {
			t.Fatal(err)
		}
		if d := sameSnapshot(snap, again); d != "" {
			t.Error(d)
		}
	})
}

// large is a Snapshot of apps of three tasks as Marathon has them.
func large(tasks int) *model.Snapshot {
	edit := model.Groups[model.AppKey, *model.App]{}.Edit()
	for i := range tasks / 3 {
		k := model.AppKey{FrameworkID: "30257977-0153-499d-a5b0-35afd842ef4d-0001", Name: fmt.Sprint("app", i)}
		a := &model.App{Key: k, Framework: "marathon"}
		for j := range 3 {
			t := &model.Task{
				Key:  model.TaskKey{FrameworkID: k.FrameworkID, ID: fmt.Sprintf("%s.0ef76549-2630-11e8-af52-%012d", k.Name, j)},
				Name: k.Name, Framework: "marathon", AgentID: "30257977-0153-499d-a5b0-35afd842ef4d-S1", State: model.Running,
				AgentAddr: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}),
				Resources: []model.PortRange{{First: 31000, Last: 31001}},
				Discovery: &model.Discovery{Name: k.Name, Ports: []model.DiscoveryPort{{
					Number: 31000, Name: "http", Protocol: "tcp", Labels: []model.Label{{Key: "VIP_0", Value: "/" + k.Name + ":80"}}}}},
			}
			t.Addrs = []model.Address{{Addr: t.AgentAddr}}
			t.Ports, _ = model.JoinPorts(t)
			a.Tasks = append(a.Tasks, t)
		}
		edit.Set(k, a)
	}
	return &model.Snapshot{Apps: edit.Groups()}
}

func BenchmarkEncode(b *testing.B) {
	s := large(100_000)
	for b.Loop() {
		b.ReportMetric(float64(len(encoded(b, s, time.Unix(1, 0))))/1e5, "bytes/task")
	}
}

func BenchmarkDecode(b *testing.B) {
	text := encoded(b, large(100_000), time.Unix(1, 0))
	for b.Loop() {
		if _, _, err := decoded(text); err != nil {
			b.Fatal(err)
		}
	}
}
