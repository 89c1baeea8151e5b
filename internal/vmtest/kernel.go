package vmtest

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kernel is an unpacked kernel package.
type Kernel struct {
	Release string // as uname says it
	Image   string // path of the kernel itself
	Modules string // folder of its modules
}

// DebianKernel returns the kernel that this Debian release has for virtual
// machines. It is downloaded by apt-get when the cache does not have it,
// unpacked into the cache and never installed.
func DebianKernel() (Kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // no home, as in some build machines
	}
	cache = filepath.Join(cache, "waggle-vmtest")
	name, err := kernelPackage()
	if err != nil {
		// Without apt's lists, what was unpacked before is as good.
		if k, found := newestIn(cache); found {
			return k, nil
		}
		return Kernel{}, err
	}
	dir := filepath.Join(cache, name)
	if k, err := openKernel(dir); err == nil {
		return k, nil
	}
	if err := unpack(name, dir); err != nil {
		return Kernel{}, err
	}
	return openKernel(dir)
}

// kernelPackage asks apt which package the one for virtual machines stands for.
func kernelPackage() (string, error) {
	const meta = "linux-image-cloud-amd64"
	depends := func() (string, error) {
		out, err := exec.Command("apt-cache", "depends", meta).Output()
		for line := range strings.Lines(string(out)) {
			if _, name, ok := strings.Cut(line, "Depends: "); ok {
				return strings.TrimSpace(name), nil
			}
		}
		return "", fmt.Errorf("look for the kernel behind %s: %w", meta, err)
	}
	if name, err := depends(); err == nil {
		return name, nil
	}
	// The lists may be missing: a machine that nothing was installed on yet.
	if out, err := exec.Command("apt-get", "update", "-qq").CombinedOutput(); err != nil {
		return "", fmt.Errorf("update apt's lists: %w: %s", err, out)
	}
	return depends()
}

// unpack puts the package into dir, whole or not at all.
func unpack(name, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), name+".")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	get := exec.Command("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name)
	get.Dir = tmp
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("download %s: %w: %s", name, err, out)
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("download %s: %d packages came, %v", name, len(debs), err)
	}
	root := filepath.Join(tmp, "root")
	if out, err := exec.Command("dpkg", "-x", debs[0], root).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", debs[0], err, out)
	}
	if err := os.Rename(root, dir); err != nil && !os.IsExist(err) {
		if _, open := openKernel(dir); open != nil { // nobody else was faster
			return err
		}
	}
	return nil
}

func newestIn(cache string) (Kernel, bool) {
	dirs, _ := filepath.Glob(filepath.Join(cache, "linux-image-*"))
	for i := len(dirs) - 1; i >= 0; i-- {
		if k, err := openKernel(dirs[i]); err == nil {
			return k, true
		}
	}
	return Kernel{}, false
}

// openKernel finds the parts of an unpacked package.
func openKernel(dir string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return Kernel{}, fmt.Errorf("%s holds %d kernels", dir, len(images))
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	k := Kernel{Release: release, Image: images[0], Modules: filepath.Join(dir, "lib", "modules", release)}
	if _, err := os.Stat(filepath.Join(k.Modules, "kernel")); err != nil {
		return Kernel{}, fmt.Errorf("kernel %s has no modules: %w", release, err)
	}
	return k, nil
}

// order returns the files of the modules and of all they need, each after what
// it needs; names are those of files without ".ko". What is built into the
// kernel is left out. Debian's package has no modules.dep, which is made where a
// kernel is installed, so the modules themselves are asked.
func (k Kernel) order(names []string) ([]string, error) {
	paths := map[string]string{}
	err := filepath.WalkDir(k.Modules, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko") {
			paths[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []string
	done := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		path := paths[name]
		if done[name] || path == "" {
			return nil
		}
		done[name] = true
		needs, err := needs(path)
		if err != nil {
			return fmt.Errorf("read module %s: %w", path, err)
		}
		for _, n := range needs {
			if err := visit(n); err != nil {
				return err
			}
		}
		out = append(out, path)
		return nil
	}
	for _, n := range names {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// needs returns the names of the modules that the one at path needs.
func needs(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info := f.Section(".modinfo")
	if info == nil {
		return nil, errors.New("it is no kernel module")
	}
	data, err := info.Data()
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			out := strings.Split(list, ",")
			for i := range out {
				out[i] = moduleName(out[i])
			}
			return out, nil
		}
	}
	return nil, nil
}

// moduleName returns the name of a module's file as modules name each other.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}
