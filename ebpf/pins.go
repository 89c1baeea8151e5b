package ebpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	// bpffs is where systems mount the bpf file system.
	bpffs = "/sys/fs/bpf"
	// schema names the layout of the maps in bpf/maps.h. State of another
	// layout lives in another folder and is never read.
	schema = "v3"
	// linkPrefix sets the pins of links apart from those of maps, which are
	// named as in bpf/maps.h. The bpf file system refuses dots in names.
	linkPrefix = "link_"
)

// pins is the folder of the state that outlives us, and our lock on it.
type pins struct {
	dir   string // of our schema
	older string // of the schema before, or "" where there is none to take over
	fresh bool   // dir did not exist before
	lock  *os.File
}

func openPins(root string) (*pins, error) {
	if err := ensureBPFFS(root); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, explain("make pin folder", err)
	}
	lock, err := lockDir(root)
	if err != nil {
		return nil, err
	}
	p := &pins{dir: filepath.Join(root, schema), lock: lock}
	if older := filepath.Join(root, "v2"); isDir(older) {
		p.older = older
	}
	err = os.Mkdir(p.dir, 0o700)
	p.fresh = err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(explain("make pin folder", err), lock.Close())
	}
	return p, nil
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// abandon removes what a first Open that failed has pinned, unless links of an
// older layout may lead there by now.
func (p *pins) abandon() error {
	if !p.fresh || p.older != "" {
		return nil
	}
	_, err := removePins(p.dir)
	// Refused, as it should be, where another schema's state is in there.
	_ = os.Remove(filepath.Dir(p.dir))
	return err
}

// ensureBPFFS makes sure that dir is, or will be, on a bpf file system.
func ensureBPFFS(dir string) error {
	on, err := onBPFFS(dir)
	if on || err != nil {
		return err
	}
	if dir != bpffs && !strings.HasPrefix(dir, bpffs+"/") {
		return fmt.Errorf("pin folder %s is not on a bpf file system", dir)
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpf file system at %s: %w: %w", bpffs, ErrNotSupported, err)
	}
	return nil
}

// onBPFFS looks at dir or, where it does not exist, at what is above it.
func onBPFFS(dir string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &st)
	}
	if err != nil {
		return false, explain("look at pin folder "+dir, err)
	}
	return uint32(st.Type) == unix.BPF_FS_MAGIC, nil
}

// lockDir keeps a second daemon from changing what we hold a picture of. The
// kernel lets go of the lock when we die.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, explain("open pin folder", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrInUse
	}
	return nil, fmt.Errorf("lock pin folder %s: %w", dir, err)
}

func (p *pins) linkPath(name string) string { return filepath.Join(p.dir, linkPrefix+name) }

// Unload detaches the programs and removes all state pinned in cfg.PinDir, of
// every schema, and returns the paths of what it removed; nothing there is no
// error. It returns ErrInUse while a Dataplane is open on it. Established
// connections go on.
func Unload(cfg Config) ([]string, error) {
	on, err := onBPFFS(cfg.PinDir)
	if !on || err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.PinDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	entries, err := os.ReadDir(cfg.PinDir)
	if err != nil {
		return nil, fmt.Errorf("read pin folder: %w", err)
	}
	isSchema := regexp.MustCompile(`^v[0-9]+$`)
	var removed []string
	for _, e := range entries {
		if !isSchema.MatchString(e.Name()) {
			continue
		}
		gone, err := removePins(filepath.Join(cfg.PinDir, e.Name()))
		removed = append(removed, gone...)
		if err != nil {
			return removed, err
		}
	}
	if err := os.Remove(cfg.PinDir); err != nil {
		return removed, fmt.Errorf("remove pin folder: %w", err)
	}
	return removed, nil
}

// removePins removes the links in dir, then the maps they used, then dir.
func removePins(dir string) (removed []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read pin folder: %w", err)
	}
	var links, rest []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), linkPrefix) {
			links = append(links, path)
		} else {
			rest = append(rest, path)
		}
	}
	for _, path := range links {
		err = errors.Join(err, detach(path))
	}
	for _, path := range append(append(links, rest...), dir) {
		if e := os.Remove(path); e != nil {
			err = errors.Join(err, fmt.Errorf("remove pin: %w", e))
			continue
		}
		removed = append(removed, path)
	}
	return removed, err
}

// detach ends a link now, whoever still holds it.
func detach(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open link %s: %w", path, err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		return fmt.Errorf("detach link %s: %w", path, err)
	}
	return nil
}
