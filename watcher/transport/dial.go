package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// dial connects to addr. Its host is looked up past the node's resolver, which is
// waggle.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	addrs, err := c.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: c.cfg.DialTimeout, KeepAlive: 15 * time.Second}
	errs := []error{fmt.Errorf("no address of %s answers", host)}
	for _, a := range addrs {
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (c *Client) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if c.cfg.Resolve == nil {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
	return c.cfg.Resolve(ctx, host)
}

// dialTLS connects to addr by TLS, with the files as they are now.
func (c *Client) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	cfg, err := c.tlsConfig(addr)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// tlsConfig is how to speak TLS to addr.
func (c *Client) tlsConfig(addr string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	names, trusted := c.trust.names(addr)
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, NextProtos: []string{"http/1.1"}}
	if len(names) > 0 {
		cfg.ServerName = names[0]
	}
	// A host that was elected goes by its address and by its name, and its
	// certificate may have either; the library checks one.
	cfg.InsecureSkipVerify = true
	if !c.cfg.TLS.Insecure {
		var roots *x509.CertPool
		if c.files.roots != nil {
			if roots, err = c.files.roots.get(); err != nil {
				return nil, err
			}
		}
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return verify(s, roots, append(names, host)) }
	}
	if c.files.pair != nil && trusted {
		pair, err := c.files.pair.get()
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{*pair}
	}
	return cfg, nil
}

// verify checks the certificate as crypto/tls does, for any of names.
func verify(s tls.ConnectionState, roots *x509.CertPool, names []string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate was shown")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, cert := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	var wrong error
	for _, name := range names {
		opts.DNSName = name
		_, err := s.PeerCertificates[0].Verify(opts)
		if err == nil {
			return nil
		}
		wrong = &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	return wrong
}
