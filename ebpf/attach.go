package ebpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// rootInode is the inode of the root of cgroup v2. What a cgroup namespace
// shows as its root has another.
const rootInode = 1

// openCgroup opens the cgroup at path or, if that is empty, the root of cgroup
// v2, wherever it is mounted or not.
func openCgroup(path string) (*os.File, error) {
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, explain("open cgroup", err)
		}
		return f, nil
	}
	// Of this thread: that of the process would be that of its first thread.
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look for cgroup v2: %w", err)
	}
	for _, mount := range cgroupMounts(string(text)) {
		if f, err := os.Open(mount); err == nil {
			if isRoot(f) {
				return f, nil
			}
			f.Close()
		}
	}
	f, err := mountCgroup()
	if err != nil {
		return nil, fmt.Errorf("mount cgroup v2: %w: %w", ErrNotSupported, err)
	}
	if !isRoot(f) {
		f.Close()
		return nil, fmt.Errorf("the root of cgroup v2 cannot be seen from this cgroup namespace: %w", ErrNotSupported)
	}
	return f, nil
}

// cgroupMounts returns where cgroup v2 is mounted according to a mountinfo
// file; proc(5) has its format.
func cgroupMounts(mountinfo string) []string {
	var mounts []string
	for line := range strings.Lines(mountinfo) {
		mount, fstype, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) > 4 && strings.HasPrefix(fstype, "cgroup2 ") {
			mounts = append(mounts, unescape(fields[4]))
		}
	}
	return mounts
}

// unescape undoes the octal escapes of white space and backslash.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// mountCgroup mounts cgroup v2 nowhere: only the returned file leads there.
func mountCgroup() (*os.File, error) {
	fsfd, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, err
	}
	// The mount's own descriptor cannot be attached to; its root can.
	defer unix.Close(fd)
	root, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(root), "cgroup2"), nil
}

func isRoot(f *os.File) bool {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	id, idErr := cgroupID(f)
	return err == nil && idErr == nil && uint32(st.Type) == unix.CGROUP2_SUPER_MAGIC && id == rootInode
}

// cgroupID returns the kernel's id of a cgroup, which is its inode.
func cgroupID(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at cgroup %s: %w", f.Name(), err)
	}
	return st.Ino, nil
}

// openPath is a path to what f has open, which may be mounted nowhere.
func openPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// attach makes h's program the one that runs in cgroup, and the link to it
// outlive us. A pinned link, ours or one that an older layout of the maps left,
// gets the new program in one step, so that no connection goes without. The
// caller closes the link, if there is one, error or not.
func (p *pins) attach(h hook, program *ebpf.Program, cgroup *os.File) (link.Link, error) {
	id, err := cgroupID(cgroup)
	if err != nil {
		return nil, err
	}
	pin := p.linkPath(h.name)
	old, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) && p.older != "" {
		old, err = link.LoadPinnedLink(filepath.Join(p.older, linkPrefix+h.name), nil)
		if err == nil {
			err = inherit(old, pin)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return old, explain("open link "+pin, err)
	}
	if old != nil && attachedTo(old, id) {
		if err := old.Update(program); err != nil {
			return old, explain("update program "+h.name, err)
		}
		return old, nil
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: openPath(cgroup), Attach: h.at, Program: program})
	if err != nil {
		return old, explain("attach program "+h.name, err)
	}
	if old != nil {
		if err := errors.Join(old.Unpin(), old.Close()); err != nil {
			return l, fmt.Errorf("remove link %s to another cgroup: %w", pin, err)
		}
	}
	if err := l.Pin(pin); err != nil {
		return l, explain("pin link "+pin, err)
	}
	return l, nil
}

// inherit moves the pin of a link to where ours are.
func inherit(l link.Link, pin string) error {
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin link of an older layout: %w", err)
	}
	return nil
}

// attachedTo reports whether l is attached to the cgroup with the given id. A
// link whose cgroup was removed is attached to none.
func attachedTo(l link.Link, id uint64) bool {
	info, err := l.Info()
	return err == nil && info.Cgroup() != nil && info.Cgroup().CgroupId == id
}

// proveEffective returns an error unless the kernel runs h's program for the
// processes of cgroup.
func proveEffective(h hook, program *ebpf.Program, cgroup *os.File) error {
	info, err := program.Info()
	if err != nil {
		return fmt.Errorf("look at program %s: %w", h.name, err)
	}
	id, _ := info.ID()
	query := link.QueryOptions{Target: int(cgroup.Fd()), Attach: h.at, QueryFlags: unix.BPF_F_QUERY_EFFECTIVE}
	got, err := link.QueryPrograms(query)
	// Their number is asked for first: ENOSPC says that others have attached one since.
	for tries := 0; errors.Is(err, unix.ENOSPC) && tries < 10; tries++ {
		got, err = link.QueryPrograms(query)
	}
	if err != nil {
		return fmt.Errorf("query programs of cgroup %s: %w", cgroup.Name(), err)
	}
	if !slices.ContainsFunc(got.Programs, func(p link.AttachedProgram) bool { return p.ID == id }) {
		return fmt.Errorf("program %s is attached to cgroup %s but does not run there", h.name, cgroup.Name())
	}
	return nil
}
