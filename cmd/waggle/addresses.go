package main

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"waggle/internal/hostnet"
)

// addresses are those added to lo. They are there before anything listens on
// them and until nothing does, so they have a life beside the daemon's parts.
type addresses struct {
	cancel context.CancelFunc
	ended  chan error
}

// keepAddresses adds the addresses, nil for none, and keeps them until close.
func keepAddresses(cfg hostnet.KeeperConfig, log *zap.Logger) (*addresses, error) {
	if len(cfg.Addrs) == 0 {
		return nil, nil
	}
	k, err := hostnet.Keep(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("dns.addresses: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &addresses{cancel: cancel, ended: make(chan error, 1)}
	go func() { a.ended <- k.Run(ctx) }()
	return a, nil
}

// close removes the addresses.
func (a *addresses) close() error {
	if a == nil {
		return nil
	}
	a.cancel()
	if err := <-a.ended; !errors.Is(err, context.Canceled) || err.Error() != context.Canceled.Error() {
		return fmt.Errorf("dns.addresses: %w", err)
	}
	return nil
}
