package zk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// defaultPort is ZooKeeper's own.
const defaultPort = "2181"

// Location is where in ZooKeeper a group of candidates registers.
type Location struct {
	Servers []string // host:port, at least one
	Path    string   // absolute, never only "/"
	// Auth is "user:password" for the digest scheme; empty for none. String
	// does not show it.
	Auth string
}

// String returns the location as a URL with the password left out.
func (l Location) String() string {
	auth := ""
	if user, _, ok := strings.Cut(l.Auth, ":"); ok {
		auth = user + ":***@"
	}
	return "zk://" + auth + strings.Join(l.Servers, ",") + l.Path
}

// Read parses text as Mesos reads its --zk flag: a URL as of Parse, or
// file:///path of a file that holds one.
func Read(text string) (Location, error) {
	name, ok := strings.CutPrefix(strings.TrimSpace(text), "file://")
	if !ok {
		return Parse(text)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return Location{}, fmt.Errorf("read ZooKeeper URL: %w", err)
	}
	l, err := Parse(string(content))
	if err != nil {
		return Location{}, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// Parse reads zk://[user:password@]host[:port],.../path as Mesos does: the path
// begins at the first slash, the credentials end at the last @ before it. A
// port that is left out is 2181. Errors do not show the password.
func Parse(text string) (Location, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "zk://")
	if !ok {
		return Location{}, errors.New("ZooKeeper URL does not begin with zk://")
	}
	var l Location
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		return l, errors.New("ZooKeeper URL has no path: the masters register below one, often /mesos")
	}
	hosts, path := rest[:slash], rest[slash:]
	quiet := func(err error) error {
		if strings.Contains(path, "@") {
			return errors.New("ZooKeeper URL has an @ behind its first slash, where its path begins: a password cannot have a slash")
		}
		return err
	}
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		l.Auth, hosts = hosts[:at], hosts[at+1:]
		if user, _, ok := strings.Cut(l.Auth, ":"); !ok || user == "" {
			return Location{}, errors.New("ZooKeeper URL has credentials that are not user:password")
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		server, err := parseServer(strings.TrimSpace(host))
		if err != nil {
			return Location{}, quiet(err)
		}
		l.Servers = append(l.Servers, server)
	}
	var err error
	l.Path, err = parsePath(path)
	if err != nil {
		return Location{}, quiet(err)
	}
	return l, nil
}

func parseServer(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), defaultPort
		if strings.Contains(host, ":") && text == host {
			return "", fmt.Errorf("ZooKeeper server %q: an IPv6 address must be in brackets", text)
		}
	}
	if host == "" || strings.ContainsAny(host, "[]@ \t\r\n") {
		return "", fmt.Errorf("ZooKeeper server %q is not host:port", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("ZooKeeper server %q: port %q is not within 1 to 65535", text, port)
	}
	return net.JoinHostPort(host, port), nil
}

// parsePath checks what ZooKeeper would refuse anyway, where it can be said
// better.
func parsePath(text string) (string, error) {
	path := strings.TrimRight(text, "/")
	if path == "" {
		return "", errors.New("ZooKeeper URL has only the root as path: the masters register below one, often /mesos")
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		switch segment {
		case "", ".", "..":
			return "", fmt.Errorf("ZooKeeper path %q has the segment %q", path, segment)
		}
	}
	for _, r := range path {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar {
			return "", fmt.Errorf("ZooKeeper path %q has a character that no path of masters has", path)
		}
	}
	return path, nil
}
