package hostnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// KeeperConfig says which addresses a Keeper keeps.
type KeeperConfig struct {
	// Link is the interface they are on.
	Link string
	// Addrs are the addresses, each with no network around it.
	Addrs []netip.Addr
	// Memory is the file in which is noted what was added, so that the next
	// Keeper takes it for its own even if this one is killed.
	Memory string
}

// Keeper keeps addresses on an interface: it adds those that are missing, adds
// them again when somebody removes them, and takes away those that it, or a
// Keeper before it, has added. Addresses that were there before are left alone.
type Keeper struct {
	cfg     KeeperConfig
	log     *zap.Logger
	handle  *netlink.Handle
	link    netlink.Link
	ours    []netip.Addr // added by a Keeper
	updates chan netlink.AddrUpdate
	done    chan struct{} // closed to end updates
}

// Keep adds the addresses in the network namespace of the calling thread. The
// caller runs Run, which removes them.
func Keep(cfg KeeperConfig, log *zap.Logger) (*Keeper, error) {
	k := &Keeper{cfg: cfg, log: log, updates: make(chan netlink.AddrUpdate, 64), done: make(chan struct{})}
	var err error
	if k.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := k.start(); err != nil {
		k.handle.Close()
		return nil, err
	}
	return k, nil
}

func (k *Keeper) start() error {
	var err error
	if k.link, err = k.handle.LinkByName(k.cfg.Link); err != nil {
		return fmt.Errorf("find interface %s: %w", k.cfg.Link, err)
	}
	present, err := k.present()
	if err != nil {
		return err
	}
	before, _ := k.recall()
	for _, a := range before {
		switch {
		case !present[a]: // gone by itself
		case slices.Contains(k.cfg.Addrs, a):
			k.ours = append(k.ours, a)
		default:
			if err := k.remove(a); err != nil {
				return err
			}
		}
	}
	for _, a := range k.cfg.Addrs {
		if !present[a] {
			k.ours = append(k.ours, a)
		}
	}
	// Noted before they are added, so that none is forgotten.
	if err := k.remember(); err != nil {
		return err
	}
	for _, a := range k.ours {
		if err := k.add(a); err != nil {
			return err
		}
	}
	opts := netlink.AddrSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case <-k.done: // which ends the reading with an error
		default:
			k.log.Warn("watch of addresses", zap.Error(err))
		}
	}}
	if err := netlink.AddrSubscribeWithOptions(k.updates, k.done, opts); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	return nil
}

// lookEvery is how often the addresses are looked at even if nothing is heard:
// the kernel drops news when there are too many.
const lookEvery = 10 * time.Second

// Run keeps the addresses until ctx ends, then removes what is ours and returns
// ctx's error. Where another Keeper has taken over it removes nothing.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.handle.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	updates := k.updates
	for {
		select {
		case <-ctx.Done():
			close(k.done)
			for range k.updates { // until its reader has ended
			}
			return errors.Join(ctx.Err(), k.removeAll())
		case u, ok := <-updates:
			if !ok {
				updates = nil // the ticker is left
			} else if !u.NewAddr && u.LinkIndex == k.link.Attrs().Index {
				k.restore()
			}
		case <-tick.C:
			k.restore()
		}
	}
}

// restore adds what is missing.
func (k *Keeper) restore() {
	present, err := k.present()
	for _, a := range k.cfg.Addrs {
		if err != nil || present[a] {
			continue
		}
		k.log.Warn("address was removed and is added again", zap.Stringer("address", a), zap.String("interface", k.cfg.Link))
		if !slices.Contains(k.ours, a) {
			k.ours = append(k.ours, a)
			err = k.remember()
		}
		err = errors.Join(err, k.add(a))
	}
	if err != nil {
		k.log.Error("addresses not kept", zap.Error(err))
	}
}

func (k *Keeper) removeAll() error {
	if _, owner := k.recall(); owner != os.Getpid() {
		return nil
	}
	var errs []error
	for _, a := range k.ours {
		errs = append(errs, k.remove(a))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(k.cfg.Memory)
}

// present returns the addresses of the interface.
func (k *Keeper) present() (map[netip.Addr]bool, error) {
	list, err := k.handle.AddrList(k.link, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", k.cfg.Link, err)
	}
	out := map[netip.Addr]bool{}
	for _, l := range list {
		if a, ok := netip.AddrFromSlice(l.IP); ok {
			out[a.Unmap()] = true
		}
	}
	return out, nil
}

func (k *Keeper) add(a netip.Addr) error {
	err := k.handle.AddrAdd(k.link, hostAddr(a))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s to %s: %w", a, k.cfg.Link, err)
	}
	return nil
}

func (k *Keeper) remove(a netip.Addr) error {
	err := k.handle.AddrDel(k.link, hostAddr(a))
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s from %s: %w", a, k.cfg.Link, err)
	}
	return nil
}

// hostAddr is a as netlink takes it: alone in its network, and usable at once.
func hostAddr(a netip.Addr) *netlink.Addr {
	out, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
	if err != nil {
		panic(err) // it is written as ParseAddr reads it
	}
	if a.Is6() {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}

// The memory is the boot that it is about, because addresses do not outlive it,
// the process that keeps the addresses, and one address a line.

func (k *Keeper) remember() error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s %d\n", bootID(), os.Getpid())
	for _, a := range k.ours {
		fmt.Fprintln(&text, a)
	}
	if err := os.MkdirAll(filepath.Dir(k.cfg.Memory), 0o755); err != nil {
		return fmt.Errorf("remember addresses: %w", err)
	}
	next := k.cfg.Memory + ".new"
	if err := os.WriteFile(next, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("remember addresses: %w", err)
	}
	return os.Rename(next, k.cfg.Memory)
}

// recall returns what was added since the machine started, and by which process.
func (k *Keeper) recall() (addrs []netip.Addr, owner int) {
	text, err := os.ReadFile(k.cfg.Memory)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.log.Warn("added addresses are forgotten", zap.Error(err))
		}
		return nil, 0
	}
	lines := strings.Fields(string(text))
	if len(lines) < 2 || lines[0] != bootID() {
		return nil, 0
	}
	_, _ = fmt.Sscan(lines[1], &owner) // else nobody's
	for _, l := range lines[2:] {
		if a, err := netip.ParseAddr(l); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs, owner
}

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(id))
}
