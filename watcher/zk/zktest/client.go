package zktest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	gozk "github.com/go-zookeeper/zk"
)

// Client writes to an ensemble as masters do. Its methods try for up to a minute
// while the ensemble does not serve.
type Client struct {
	tb   testing.TB
	conn *gozk.Conn
	acl  []gozk.ACL
}

// Client connects with auth, "user:password" or empty for none. The session, and
// with it what Register made, ends with Close or the test. A client with auth
// makes nodes that only it may write and anybody may read, as Mesos does.
func (e *Ensemble) Client(auth string) *Client {
	e.tb.Helper()
	conn, events, err := gozk.Connect(strings.Split(e.addrs(), ","), 4*time.Second,
		gozk.WithLogInfo(false), gozk.WithLogger(silent{}))
	if err != nil {
		e.tb.Fatal(err)
	}
	c := &Client{tb: e.tb, conn: conn, acl: gozk.WorldACL(gozk.PermAll)}
	e.tb.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	if auth != "" {
		c.try("authenticate", func() error { return conn.AddAuth("digest", []byte(auth)) })
		c.acl = append(gozk.AuthACL(gozk.PermAll), gozk.WorldACL(gozk.PermRead)...)
	}
	return c
}

type silent struct{}

// Printf drops the library's chatter.
func (silent) Printf(string, ...any) {}

// Close ends the session at once.
func (c *Client) Close() { c.conn.Close() }

// Make makes the nodes of path that do not exist.
func (c *Client) Make(path string) {
	c.tb.Helper()
	at := ""
	for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		at += "/" + segment
		c.try("make "+at, func() error {
			_, err := c.conn.Create(at, nil, 0, c.acl)
			if errors.Is(err, gozk.ErrNodeExists) {
				return nil
			}
			return err
		})
	}
}

// Register makes an ephemeral sequential node with data and returns its path.
// prefix is its path up to the number, "/mesos/json.info_" say.
func (c *Client) Register(prefix string, data []byte) (path string) {
	c.tb.Helper()
	c.try("register "+prefix, func() (err error) {
		path, err = c.conn.Create(prefix, data, gozk.FlagEphemeral|gozk.FlagSequence, c.acl)
		return err
	})
	return path
}

// Master registers a master that listens at addr below path, as Mesos 1.12 does.
func (c *Client) Master(path string, addr netip.AddrPort) (node string) {
	c.tb.Helper()
	return c.Register(path+"/json.info_", MasterInfo(addr))
}

// MasterInfo is the data of such a node.
func MasterInfo(addr netip.AddrPort) []byte {
	host, port, _ := net.SplitHostPort(addr.String())
	return fmt.Appendf(nil, `{"address":{"hostname":%[1]q,"ip":%[1]q,"port":%[2]s},"hostname":%[1]q,"id":"id-of-%[2]s","pid":"master@%[3]s","port":%[2]s,"version":"1.12.0"}`, host, port, addr)
}

// Hide takes the right to read path from everybody but the client itself.
func (c *Client) Hide(path string) {
	c.tb.Helper()
	c.try("hide "+path, func() error {
		_, err := c.conn.SetACL(path, gozk.AuthACL(gozk.PermAll), -1)
		return err
	})
}

// Delete removes a node.
func (c *Client) Delete(path string) {
	c.tb.Helper()
	c.try("delete "+path, func() error { return c.conn.Delete(path, -1) })
}

// try calls f until it does not fail for want of a server.
func (c *Client) try(what string, f func() error) {
	c.tb.Helper()
	deadline := time.Now().Add(startLimit)
	for {
		err := f()
		if err == nil {
			return
		}
		again := errors.Is(err, gozk.ErrNoServer) || errors.Is(err, gozk.ErrConnectionClosed) || errors.Is(err, gozk.ErrSessionExpired)
		if !again || time.Now().After(deadline) {
			c.tb.Fatalf("%s: %v", what, err)
		}
	}
}
