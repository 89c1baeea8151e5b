package wire

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// busy is how soon the next packet must come for the next wait to hold on to
// the scheduler's slot.
const busy = 2 * time.Millisecond

// waitLimit ends every wait. It bounds for how long the garbage collector can
// be kept waiting should the runtime's signal fail to end a wait, and, because
// a call with a time limit is not restarted, it is what makes the signal end it.
const waitLimit = 100 * time.Millisecond

// Preemptible reports whether the runtime interrupts threads with signals, as
// it does unless told otherwise.
func Preemptible() bool { return !strings.Contains(os.Getenv("GODEBUG"), "asyncpreemptoff=1") }

// pace is how a locked thread waits for packets.
//
// While packets come often it waits for them without telling the scheduler:
// handing the slot over and back wakes a second thread, which costs more than
// an answer. The runtime's preemption signal ends such a wait, so the collector
// still gets its turn. When packets come seldom the scheduler is told, as with
// any blocking call.
type pace struct {
	eager   bool // allowed to wait without telling the scheduler
	waiting bool // does so now
	last    time.Time
}

// call makes a system call that waits: on fd, with what p points to, and two
// more arguments.
func (w *pace) call(trap uintptr, fd int, p unsafe.Pointer, a, b uintptr) (int, syscall.Errno) {
	var n uintptr
	var errno syscall.Errno
	if w.waiting {
		n, _, errno = syscall.RawSyscall6(trap, uintptr(fd), uintptr(p), a, b, 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(trap, uintptr(fd), uintptr(p), a, b, 0, 0)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// came notes a wait that brought something.
func (w *pace) came() {
	if w.eager && !w.waiting {
		now := time.Now()
		w.waiting = now.Sub(w.last) < busy
		w.last = now
	}
}

// idle notes one that did not: the runtime wants the slot, or nothing has come
// for long.
func (w *pace) idle() {
	if w.waiting {
		w.waiting = false
		w.last = time.Now()
		runtime.Gosched()
	}
}
