package main

import (
	"fmt"
	"time"

	"waggle/watcher"
	"waggle/watcher/marathon"
)

type marathonConfig struct {
	Hosts     []string      `yaml:"hosts" help:"Marathons, host:port or http(s)://host[:port][/path], any of which leads to the leader; beside Mesos they add what only they know, alone they tell of everything"`
	Resync    time.Duration `yaml:"resync" help:"how often to read everything again beside the events"`
	Poll      time.Duration `yaml:"poll" help:"how often to read everything where there are no events"`
	EmptyHold time.Duration `yaml:"empty_hold" help:"how long Marathon must show nothing at all before that is believed"`

	Auth authConfig `yaml:"auth"`
	TLS  tlsConfig  `yaml:"tls"`
}

func defaultMarathonConfig() marathonConfig {
	m := marathon.DefaultConfig()
	return marathonConfig{
		Hosts: []string{}, Resync: m.Resync, Poll: m.Poll, EmptyHold: m.EmptyHold,
		Auth: defaultAuthConfig(), TLS: defaultTLSConfig(),
	}
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

func (c marathonConfig) source(lookup watcher.Lookup) marathon.Config {
	m := marathon.DefaultConfig()
	m.Hosts, m.Resync, m.Poll, m.EmptyHold = c.Hosts, c.Resync, c.Poll, c.EmptyHold
	m.Resolve = lookup
	m.Transport.Auth, m.Transport.TLS = c.Auth.transport(), c.TLS.transport()
	return m
}
