package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"waggle/vip"
)

// defaultConfigFile is read when no --config is given and it exists.
const defaultConfigFile = "/etc/waggle/waggle.yaml"

// fileConfig is the shape of the configuration file. Every key is also a flag
// named by its path, --dns.listen for one; a flag beats the file.
type fileConfig struct {
	Mesos    mesosConfig    `yaml:"mesos"`
	Marathon marathonConfig `yaml:"marathon"`
	File     fileSource     `yaml:"file"`
	State    stateConfig    `yaml:"state"`
	DNS      dnsConfig      `yaml:"dns"`
	VIP      vipConfig      `yaml:"vip"`
	LB       lbConfig       `yaml:"lb"`
	HTTP     httpConfig     `yaml:"http"`
	Log      logConfig      `yaml:"log"`
}

type fileSource struct {
	Paths []string `yaml:"paths" help:"files, and folders of *.yaml, *.yml and *.json, with services that no scheduler starts"`
}

type stateConfig struct {
	Dir string `yaml:"dir" help:"folder for what a restarted daemon serves before it has heard from the scheduler; empty keeps nothing"`
}

type dnsConfig struct {
	Listen     []string      `yaml:"listen" help:"addresses to answer DNS on, UDP and TCP: address:port, or interface:port for all that the interface has at the start"`
	Addresses  []string      `yaml:"addresses" help:"addresses to answer DNS on, port 53, that are added to lo and kept there, 198.51.100.1 for one"`
	Handover   bool          `yaml:"handover" help:"let the next daemon listen before this one has ended, and this one before the last has"`
	Loop       string        `yaml:"loop" help:"how UDP is read: raw with few system calls on threads of their own, plain by the Go runtime, auto chooses"`
	Readers    int           `yaml:"readers" help:"sockets to read for each address, each with a thread of its own"`
	Kernel     int           `yaml:"kernel_answers" help:"how many answers that are asked for often the kernel keeps, and gives by itself to processes of this machine (Linux 6.6); 0 for none"`
	Domain     string        `yaml:"domain" help:"domain of task names, as mesos-dns has it"`
	DCOSDomain string        `yaml:"dcos_domain" help:"domain of the names that DC/OS has"`
	TTL        time.Duration `yaml:"ttl" help:"time that names in the domain may be cached, whole seconds"`
	DCOSTTL    time.Duration `yaml:"dcos_ttl" help:"time that DC/OS names may be cached, whole seconds"`
	IPSources  []string      `yaml:"ip_sources" help:"which address of a task its name gets, in mesos-dns' order of host, docker, mesos, netinfo; empty chooses per task and port"`
	Exact      bool          `yaml:"exact" help:"leave out of the domain every name that mesos-dns does not have"`
	Records    []string      `yaml:"records" help:"further records, each as name type data: A, AAAA, CNAME, PTR, SRV or TXT, under any name"`
	CryptoID   string        `yaml:"crypto_id" help:"DC/OS' name of the cluster, for names below <id>.dcos.directory; empty for none"`
	Public     []string      `yaml:"public" help:"addresses at which the outside reaches this machine, public.thisnode in the DC/OS domain"`
	RFC952     bool          `yaml:"rfc952" help:"shorten task names to 24 characters, as mesos-dns' EnforceRFC952 does"`
	SRVWeight  uint16        `yaml:"srv_weight" help:"weight in SRV records"`
	SOA        soaConfig     `yaml:"soa"`

	Allow         []string       `yaml:"allow" help:"networks that are answered: prefixes, addresses, any, loopback, private, own"`
	Transfer      []string       `yaml:"transfer" help:"networks that may have whole zones by AXFR"`
	CookieSecrets string         `yaml:"cookie_secrets" help:"file with secrets of 32 hexadecimal digits for DNS cookies, one a line, the first to make and all to prove them; empty makes one up each day"`
	Limit         dnsLimitConfig `yaml:"limit"`
	TCP           dnsTCPConfig   `yaml:"tcp"`
	Forward       forwardConfig  `yaml:"forward"`
	Log           dnsLogConfig   `yaml:"log"`
}

type soaConfig struct {
	MName   string        `yaml:"mname" help:"name of this server in SOA and NS records of the domain"`
	RName   string        `yaml:"rname" help:"mailbox of the one responsible for the domain"`
	Refresh time.Duration `yaml:"refresh" help:"SOA refresh"`
	Retry   time.Duration `yaml:"retry" help:"SOA retry"`
	Expire  time.Duration `yaml:"expire" help:"SOA expire"`
	Minimum time.Duration `yaml:"minimum" help:"time that the absence of a name may be cached"`
}

type lbConfig struct {
	Backend  string        `yaml:"backend" help:"what balances: ebpf, ipvs, none, or auto for the best this kernel has"`
	Grace    time.Duration `yaml:"grace" help:"how long a removed VIP goes on refusing connections, longer than names are cached"`
	Peername bool          `yaml:"peername" help:"let getpeername show the VIP to clients, for 2 µs a connection"`
	Cgroup   string        `yaml:"cgroup" help:"balance for processes below this cgroup v2 folder only; empty for the whole machine"`
	Exclude  []string      `yaml:"exclude" help:"clients that are left alone and reach the addresses they ask for, VIP or not: networks, cgroup:PATH, namespace:FILE"`
	Eject    ejectConfig   `yaml:"eject"`
	Node     []string      `yaml:"node" help:"addresses of this machine as the scheduler knows it, for VIPs that prefer near backends; empty for all it has"`
	ShortCut vip.ShortCut  `yaml:"short_cut" help:"backends on this machine that are reached by their container's address, past its port mapping: none, mesos (those of Mesos' own containerizer) or all (Docker's too)"`
	Watch    bool          `yaml:"watch" help:"count failed connects and time others, per backend, for 2 µs a connection"`
	SelfTest bool          `yaml:"self_test" help:"connect through a VIP of our own every minute, from a cgroup of its own"`
	PinDir   string        `yaml:"pin_dir" help:"folder on a bpf file system for the kernel state that outlives the daemon"`
	IPVS     ipvsConfig    `yaml:"ipvs"`
}

type ipvsConfig struct {
	Containers string `yaml:"containers" help:"folder whose files name network namespaces to balance in by IPVS, as DC/OS' CNI plugin writes it; empty for none"`
	TakeOver   bool   `yaml:"take_over" help:"make services ours that another balancer has put into IPVS; it must be gone for good"`
}

type logConfig struct {
	Level  zapcore.Level `yaml:"level" help:"debug, info, warn or error"`
	Format string        `yaml:"format" help:"console or json"`
}

// readConfig returns the defaults overlaid with the file at path. An empty path
// is the default file, which may be missing. A file may be of mesos-dns or DC/OS.
func readConfig(path string) (fileConfig, error) {
	cfg := defaultFileConfig()
	name := path
	if name == "" {
		name = defaultConfigFile
	}
	text, err := os.ReadFile(name)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return cfg, fmt.Errorf("read configuration: %w", err)
	}
	if _, _, _, foreign, readErr := readForeign(text, name, &cfg); foreign {
		err = readErr
	} else {
		err = decodeYAML(text, &cfg)
	}
	if err != nil {
		return cfg, fmt.Errorf("configuration %s: %w", name, err)
	}
	return cfg, nil
}

// unknownField is what the decoder says of a key that there is not.
var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// inWordsOfKeys says what the decoder says of Go types so that people understand
// it, each on a line of its own.
func inWordsOfKeys(err error) error {
	wrong, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return err
	}
	return errors.New(unknownField.ReplaceAllString(strings.Join(wrong.Errors, "\n"), "there is no key $1 here"))
}

// decodeYAML refuses keys it does not know and a second document.
func decodeYAML(text []byte, cfg *fileConfig) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(cfg); err != nil && !errors.Is(err, io.EOF) {
		return inWordsOfKeys(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	return nil
}
