package ebpf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
)

const hybrid = `23 28 0:21 / /sys rw,nosuid - sysfs sysfs rw
30 23 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
40 30 0:36 / /sys/fs/cgroup/unified rw,relatime shared:10 master:3 - cgroup2 cgroup2 rw
41 28 0:36 /docker /odd\040place/with\134slash rw - cgroup2 none rw,nsdelegate
`

func TestCgroupMounts(t *testing.T) {
	for name, tc := range map[string]struct {
		mountinfo string
		want      []string
	}{
		"a hybrid system":         {hybrid, []string{"/sys/fs/cgroup/unified", `/odd place/with\slash`}},
		"nothing":                 {"", nil},
		"a line that is cut":      {"40 30 0:36 /\n40 30 0:36 / - cgroup2 x", nil},
		"another with the prefix": {"40 30 0:36 / /a rw - cgroup2fs x rw\n", nil},
		"an escape that is none":  {`40 30 0:36 / /a\9\04 rw - cgroup2 x rw`, []string{`/a\9\04`}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, cgroupMounts(tc.mountinfo)); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzCgroupMounts(f *testing.F) {
	f.Add(hybrid)
	f.Add("40 30 0:36 / /a\\777\\ rw - cgroup2 x rw")
	f.Fuzz(func(t *testing.T, mountinfo string) {
		got := cgroupMounts(mountinfo)
		if len(got) > strings.Count(mountinfo, "cgroup2 ") {
			t.Errorf("%d mounts of %q", len(got), mountinfo)
		}
		if slices.Contains(got, "") {
			t.Errorf("an empty mount of %q", mountinfo)
		}
	})
}

// TestOthersMayAttachWhileWeLook attaches and detaches a program above the
// cgroup that is looked at.
func TestOthersMayAttachWhileWeLook(t *testing.T) {
	b := newBed(t)
	above := b.cfg.Cgroup
	b.cfg.Cgroup = filepath.Join(above, "below")
	if err := os.Mkdir(b.cfg.Cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	d := b.open(t)
	h := hook{bpfProgConnect4, ebpf.AttachCGroupInet4Connect, true}
	program := d.objs.programs[h.name]
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			l, err := link.AttachCgroup(link.CgroupOptions{Path: above, Attach: h.at, Program: program})
			if err == nil {
				err = l.Close()
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 500 {
		if err := proveEffective(h, program, d.cgroup); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
