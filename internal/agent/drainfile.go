package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"waggle/lb"
	"waggle/model"
	"waggle/vip"
)

// drainFile keeps drains over restarts of the daemon, though not of the
// machine: then there are no connections left to end.
type drainFile struct {
	path string // "" keeps none
	is   []byte // what the file holds; nil for not known
}

type savedDrains struct {
	Boot   string       `json:"boot"` // of the kernel whose sockets they are about
	Drains []savedDrain `json:"drains"`
}

type savedDrain struct {
	VIP      netip.AddrPort `json:"vip"`
	Protocol string         `json:"protocol"`
	Backend  netip.AddrPort `json:"backend"`
	Until    time.Time      `json:"until"`
}

// bootID is another one after each start of the machine.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it all boots are one
	return string(bytes.TrimSpace(id))
}

// load returns the drains of a daemon before this one, none where there was
// none or before the machine was started.
func (f *drainFile) load() ([]lb.Drain, error) {
	if f.path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var saved savedDrains
	if err := json.Unmarshal(b, &saved); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	if saved.Boot != bootID() {
		return nil, nil
	}
	var out []lb.Drain
	for _, d := range saved.Drains {
		proto, err := model.ParseProto(d.Protocol)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.path, err)
		}
		out = append(out, lb.Drain{Frontend: vip.Frontend{Addr: d.VIP, Proto: proto}, Backend: d.Backend, Until: d.Until})
	}
	return out, nil
}

// save makes the file hold list, wholly or not at all. What is lost with the
// machine is no loss, so it need not be on the disk.
func (f *drainFile) save(list []lb.Drain) error {
	if f.path == "" {
		return nil
	}
	saved := savedDrains{Boot: bootID(), Drains: make([]savedDrain, 0, len(list))}
	for _, d := range list {
		saved.Drains = append(saved.Drains, savedDrain{d.Frontend.Addr, d.Frontend.Proto.String(), d.Backend, d.Until})
	}
	b, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	if bytes.Equal(b, f.is) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(f.path+".new", b, 0o600); err != nil {
		return errors.Join(err, os.Remove(f.path+".new"))
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		return err
	}
	f.is = b
	return nil
}
