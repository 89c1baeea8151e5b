package ebpf

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"waggle/internal/hostnet"
	"waggle/lb"
)

// names knows by which ids the kernel knows clients. Containers come and go, so
// what it knows of namespaces and cgroups is as old as the last forget.
type names struct {
	root       string                   // the folder of the cgroup that is balanced
	look       func(file string) uint64 // the cookie of a namespace, or 0
	cgroups    map[string]uint64
	files      map[string]uint64 // cookies of namespaces, by file
	namespaces []namespace       // nil for not looked yet
}

// namespace is a network namespace that a process is in.
type namespace struct {
	cookie uint64
	addrs  []netip.Addr
}

func newNames(root string) *names {
	n := &names{root: root, look: func(file string) uint64 {
		ns, _ := lookInto(file, false)
		return ns.cookie
	}}
	n.forget()
	return n
}

// forget makes the next resolve look again.
func (n *names) forget() {
	n.cgroups, n.files, n.namespaces = map[string]uint64{}, map[string]uint64{}, nil
}

// resolve returns the keys of those clients that exist now.
func (n *names) resolve(clients []lb.Client) []bpfAllowKey {
	var keys []bpfAllowKey
	add := func(by uint32, id uint64) {
		if id != 0 {
			keys = append(keys, bpfAllowKey{Id: id, By: by})
		}
	}
	for _, c := range clients {
		switch {
		case c.Cgroup != "":
			add(flagCgroup, lookUp(n.cgroups, c.Cgroup, n.cgroup))
		case c.Namespace != "":
			add(flagNetns, lookUp(n.files, c.Namespace, n.look))
		case c.Source.IsValid():
			for _, ns := range n.all() {
				if slices.ContainsFunc(ns.addrs, c.Source.Contains) {
					add(flagNetns, ns.cookie)
				}
			}
		}
	}
	less := func(a, b bpfAllowKey) int {
		if a.Id != b.Id {
			if a.Id < b.Id {
				return -1
			}
			return 1
		}
		return int(a.By) - int(b.By)
	}
	slices.SortFunc(keys, less)
	return slices.Compact(keys)
}

func lookUp(known map[string]uint64, name string, find func(string) uint64) uint64 {
	id, ok := known[name]
	if !ok {
		id = find(name)
		known[name] = id
	}
	return id
}

// cgroup returns the id of the cgroup at a path below the root, or 0.
func (n *names) cgroup(path string) uint64 {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(n.root, path), &st); err != nil {
		return 0
	}
	return st.Ino
}

// all returns the network namespaces that processes are in.
func (n *names) all() []namespace {
	if n.namespaces != nil {
		return n.namespaces
	}
	n.namespaces = []namespace{}
	seen := map[string]bool{}
	files, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, file := range append(files, namedNamespaces()...) {
		id, err := os.Readlink(file)
		named := strings.HasPrefix(file, "/run/") // those are no links
		if err != nil && !named || seen[id] {
			continue // ended meanwhile, or known
		}
		ns, err := lookInto(file, true)
		if err != nil {
			continue // ended just now: another process of that namespace will do
		}
		n.namespaces = append(n.namespaces, ns)
		if !named {
			seen[id] = true
		}
	}
	return n.namespaces
}

func namedNamespaces() []string {
	files, _ := filepath.Glob("/run/netns/*")
	return files
}

// lookInto enters the network namespace of a file and returns its cookie and,
// if wanted, its addresses. It does so on a thread of its own, which ends.
func lookInto(file string, addrs bool) (ns namespace, err error) {
	f, err := os.Open(file)
	if err != nil {
		return namespace{}, fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	err = hostnet.OnThread(func() (err error) {
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", file, err)
		}
		if ns.cookie, err = cookie(); err != nil || !addrs {
			return err
		}
		all, err := net.InterfaceAddrs()
		for range 3 { // the kernel ends a list that changes while it is read
			if err == nil {
				break
			}
			all, err = net.InterfaceAddrs()
		}
		for _, a := range all {
			if ip, ok := a.(*net.IPNet); ok {
				addr, _ := netip.AddrFromSlice(ip.IP)
				ns.addrs = append(ns.addrs, addr.Unmap())
			}
		}
		return err
	})
	return ns, err
}

// cookie returns the cookie of the thread's network namespace (Linux 5.14).
func cookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("look at network namespace: %w", err)
	}
	defer unix.Close(fd)
	id, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("cookie of network namespace: %w", err)
	}
	return id, nil
}
