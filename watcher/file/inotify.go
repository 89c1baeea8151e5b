package file

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mask is what may change the files in a folder. A file that is written in
// place counts once it is closed, not while it is half there; IN_CREATE is for
// links, which nobody closes.
const mask = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM |
	unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ATTRIB | unix.IN_ONLYDIR

// watch notices changes in folders by inotify(7). A nil one notices none.
type watch struct {
	fd    int
	file  *os.File
	dirty chan struct{} // one slot
	done  chan struct{} // closed when the reader has ended
}

func newWatch() (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	w := &watch{fd: fd, file: os.NewFile(uintptr(fd), "inotify"), dirty: make(chan struct{}, 1), done: make(chan struct{})}
	go w.read()
	return w, nil
}

// read pokes dirty for whatever is told: which file it was does not matter,
// since all are looked at.
func (w *watch) read() {
	defer close(w.done)
	buf := make([]byte, 4096)
	for {
		if _, err := w.file.Read(buf); err != nil {
			return // closed; after anything else the slow reading is left
		}
		select {
		case w.dirty <- struct{}{}:
		default:
		}
	}
}

func (w *watch) changed() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.dirty
}

// follow watches folders too. One that is watched already costs nothing; one
// that does not exist is tried again at the next call.
func (w *watch) follow(folders []string) {
	if w == nil {
		return
	}
	for _, f := range folders {
		_, _ = unix.InotifyAddWatch(w.fd, f, mask) // read says what is wrong with f
	}
}

// close ends the watch and waits for its reader.
func (w *watch) close() {
	w.file.Close()
	<-w.done
}
