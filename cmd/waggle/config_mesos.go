package main

import (
	"fmt"

	"waggle/internal/hostnet"
	"waggle/watcher/mesos"
	"waggle/watcher/zk"
)

type mesosConfig struct {
	Masters []string `yaml:"masters" help:"Mesos masters, host:port or http(s)://host:port, any of which leads to the leader"`
	ZK      zkURL    `yaml:"zk" help:"where masters are elected, zk://[user:password@]host:port,.../path, or file:///name of a file with that"`
	HTTPS   bool     `yaml:"https" help:"speak HTTPS to masters found in ZooKeeper"`
}

// zkURL is a ZooKeeper URL as configured. It is printed without its password.
type zkURL string

// UnmarshalText takes the text as it is; check reads it.
func (u *zkURL) UnmarshalText(text []byte) error {
	*u = zkURL(text)
	return nil
}

// String returns the URL with the password left out.
func (u zkURL) String() string {
	l, err := zk.Parse(string(u))
	if err != nil || l.Auth == "" {
		return string(u)
	}
	return l.String()
}

// check returns what is wrong with the keys.
func (c mesosConfig) check() error {
	if c.ZK == "" {
		return nil
	}
	if _, err := zk.Read(string(c.ZK)); err != nil {
		return fmt.Errorf("mesos.zk: %w", err)
	}
	return nil
}

// detector is where the masters are elected; ok is false where that is not
// configured.
func (c mesosConfig) detector(r *hostnet.Resolver) (_ zk.Config, ok bool, err error) {
	d := zk.DefaultConfig()
	if c.ZK == "" {
		return d, false, nil
	}
	d.Resolve = r.Lookup
	d.Location, err = zk.Read(string(c.ZK))
	return d, true, err
}

func (c mesosConfig) source(r *hostnet.Resolver, e mesos.Election) mesos.Config {
	m := mesos.DefaultConfig()
	m.Masters, m.HTTPS, m.Resolve, m.Election = c.Masters, c.HTTPS, r.Lookup, e
	return m
}
