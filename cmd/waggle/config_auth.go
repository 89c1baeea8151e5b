package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"waggle/watcher/transport"
)

// authConfig is how an HTTP source authorizes us. Secrets are in files only.
type authConfig struct {
	Principal       string                `yaml:"principal" help:"who we are in basic authentication, with secret_file"`
	SecretFile      string                `yaml:"secret_file" help:"file with the principal's password"`
	CredentialsFile string                `yaml:"credentials_file" help:"file with both: principal:password, or JSON with principal and secret"`
	TokenFile       string                `yaml:"token_file" help:"file with a token that others renew"`
	TokenScheme     transport.TokenScheme `yaml:"token_scheme" help:"how the token is sent: dcos as token=..., or bearer"`
	ServiceAccount  string                `yaml:"service_account_file" help:"file with a DC/OS service account, JSON with uid, private_key and login_endpoint"`
}

// tlsConfig is how HTTPS is spoken to an HTTP source.
type tlsConfig struct {
	CAFile   string `yaml:"ca_file" help:"PEM file of the authorities that sign certificates of servers; empty for those the system trusts"`
	CertFile string `yaml:"cert_file" help:"PEM file of our own certificate, intermediates behind it; empty for none"`
	KeyFile  string `yaml:"key_file" help:"PEM file of its key"`
	Verify   bool   `yaml:"verify" help:"believe only certificates that such an authority signed for the server's name"`
}

func defaultAuthConfig() authConfig { return authConfig{TokenScheme: transport.TokenDCOS} }

func defaultTLSConfig() tlsConfig { return tlsConfig{Verify: true} }

func (c authConfig) transport() transport.Auth {
	return transport.Auth{
		Principal: c.Principal, SecretFile: c.SecretFile, CredentialsFile: c.CredentialsFile,
		TokenFile: c.TokenFile, TokenScheme: c.TokenScheme, ServiceAccountFile: c.ServiceAccount,
	}
}

func (c tlsConfig) transport() transport.TLS {
	return transport.TLS{CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Insecure: !c.Verify}
}

// transports are how the HTTP sources are spoken to, by the key they are below.
// Hosts that cannot be one are left out: their keys are checked for themselves.
func (c fileConfig) transports() map[string]transport.Config {
	m := c.Mesos.source(nil, nil).Transport()
	if c.Mesos.ZK != "" { // for what is said of them
		scheme := "http"
		if c.Mesos.HTTPS {
			scheme = "https"
		}
		m.Hosts = append(m.Hosts, transport.Host{URL: &url.URL{Scheme: scheme, Host: "masters found in ZooKeeper"}})
	}
	marathon, _ := c.Marathon.source(nil).Asks()
	return map[string]transport.Config{"mesos": m, "marathon": marathon}
}

// checkTransports returns what is wrong with the keys by themselves.
func (c fileConfig) checkTransports(bad func(key, format string, args ...any)) {
	all := c.transports()
	for _, source := range slices.Sorted(maps.Keys(all)) {
		all[source].Check(func(setting string, err error) { bad(source+"."+setting, "%v", err) })
	}
}

// inspect reads the files that the keys name. It returns what is wrong with them,
// and calls warn with what is unwise. The daemon runs with either: a file may yet
// come.
func (c fileConfig) inspect(warn func(error)) error {
	var errs []error
	all := c.transports()
	for _, source := range slices.Sorted(maps.Keys(all)) {
		keyed := func(setting string, err error) error { return fmt.Errorf("%s.%s: %w", source, setting, err) }
		all[source].Inspect(
			func(setting string, err error) { errs = append(errs, keyed(setting, err)) },
			func(setting string, err error) { warn(keyed(setting, err)) })
	}
	return errors.Join(errs...)
}
