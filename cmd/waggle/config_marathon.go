package main

import (
	"fmt"
	"time"

	"waggle/internal/hostnet"
	"waggle/watcher/marathon"
)

type marathonConfig struct {
	Hosts     []string      `yaml:"hosts" help:"Marathons, host:port or http(s)://host[:port][/path], any of which leads to the leader; beside Mesos they add what only they know, alone they tell of everything"`
	Resync    time.Duration `yaml:"resync" help:"how often to read everything again beside the events"`
	Poll      time.Duration `yaml:"poll" help:"how often to read everything where there are no events"`
	EmptyHold time.Duration `yaml:"empty_hold" help:"how long Marathon must show nothing at all before that is believed"`
}

func defaultMarathonConfig() marathonConfig {
	m := marathon.DefaultConfig()
	return marathonConfig{Hosts: []string{}, Resync: m.Resync, Poll: m.Poll, EmptyHold: m.EmptyHold}
}

// check returns what is wrong with the keys.
func (c marathonConfig) check() error {
	if _, err := c.source(nil).Asks(); err != nil {
		return fmt.Errorf("marathon.hosts: %w", err)
	}
	if c.Resync < time.Second {
		return fmt.Errorf("marathon.resync: %s is less than a second", c.Resync)
	}
	if c.Poll < time.Second {
		return fmt.Errorf("marathon.poll: %s is less than a second", c.Poll)
	}
	return nil
}

func (c marathonConfig) source(r *hostnet.Resolver) marathon.Config {
	m := marathon.DefaultConfig()
	m.Hosts, m.Resync, m.Poll, m.EmptyHold = c.Hosts, c.Resync, c.Poll, c.EmptyHold
	if r != nil {
		m.Resolve = r.Lookup
	}
	return m
}
