package vmtest

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// archive writes an initramfs: a gzipped cpio archive of the "newc" form that
// the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format).
type archive struct {
	zip  *gzip.Writer
	out  io.Writer
	n    int64 // octets written so far
	made map[string]bool
	ino  int
}

func newArchive(w io.Writer) (*archive, error) {
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	return &archive{zip: zip, out: zip, made: map[string]bool{"": true, ".": true}}, nil
}

// add puts the file at from into the archive at to, with the folders it is in.
func (a *archive) add(to, from string, mode uint32) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.file(to, f, info.Size(), mode)
}

func (a *archive) text(to, text string) error {
	return a.file(to, strings.NewReader(text), int64(len(text)), 0o644)
}

// link makes a symbolic link.
func (a *archive) link(name, target string) error {
	return a.entry(strings.TrimPrefix(name, "/"), 0o120777, strings.NewReader(target), int64(len(target)))
}

func (a *archive) file(to string, content io.Reader, size int64, mode uint32) error {
	to = strings.TrimPrefix(to, "/")
	if err := a.dir(path.Dir(to)); err != nil {
		return err
	}
	return a.entry(to, 0o100000|mode, content, size)
}

func (a *archive) dir(name string) error {
	name = strings.TrimPrefix(name, "/")
	if a.made[name] {
		return nil
	}
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	a.made[name] = true
	return a.entry(name, 0o040755, strings.NewReader(""), 0)
}

func (a *archive) entry(name string, mode uint32, content io.Reader, size int64) error {
	a.ino++
	const header = "070701" + // the form
		"%08x%08x" + "00000000" + "00000000" + "00000001" + "00000000" + // inode, mode, uid, gid, links, mtime
		"%08x" + "00000000" + "00000000" + "00000000" + "00000000" + // size, devices
		"%08x" + "00000000" // length of the name, no check sum
	if err := a.write(strings.NewReader(fmt.Sprintf(header, a.ino, mode, size, len(name)+1)+name+"\x00"), -1); err != nil {
		return err
	}
	return a.write(content, size)
}

// write copies content and pads to a multiple of four.
func (a *archive) write(content io.Reader, size int64) error {
	n, err := io.Copy(a.out, content)
	if err != nil {
		return err
	}
	if size >= 0 && n != size {
		return fmt.Errorf("file changed while it was read: %d octets, not %d", n, size)
	}
	a.n += n
	for ; a.n%4 != 0; a.n++ {
		if _, err := a.out.Write([]byte{0}); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) close() error {
	if err := a.entry("TRAILER!!!", 0, strings.NewReader(""), 0); err != nil {
		return err
	}
	return a.zip.Close()
}
