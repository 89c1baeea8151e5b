// Package arch holds the tests that keep the table of packages in
// docs/ARCHITECTURE.md true: who may import whom, which library has which
// owner, and the house rules that a machine can check.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ranks orders the packages: one imports only packages of lower rank.
var ranks = map[string]int{
	"model": 0,

	"vip": 1, "watcher": 1, "watcher/zk": 1, "watcher/transport": 1, "internal/hostnet": 1,

	"dns/forward": 1, "dns/wire": 0,

	"lb": 2, "dns": 2, "watcher/mesos": 2, "watcher/marathon": 2, "watcher/file": 2,
	"watcher/archive": 2,

	"ebpf": 3, "ebpf/answers": 3, "lb/ipvs": 3, "explain": 3, "lb/lbtest": 3, "watcher/mesos/mesostest": 3, "watcher/zk/zktest": 3, "watcher/transport/transporttest": 3, "api": 3,
	"internal/vmtest/guest/script": 0, "internal/vmtest/guest": 1, "internal/vmtest": 4,

	"lb/feature": 4, "internal/testnet": 3, "internal/outside": 0, "internal/devcluster": 3, "internal/capability": 0,

	"dns/guard": 1,

	"internal/dnscheck": 0, "internal/dnspeer": 0,

	"internal/agent": 4,

	"cmd/waggle": 5, "bench": 5, "internal/arch": 5,
}

// testOnly packages are imported by tests and by bench, never by the program.
var testOnly = []string{"lb/lbtest", "lb/feature", "watcher/mesos/mesostest", "watcher/zk/zktest", "watcher/transport/transporttest",
	"internal/testnet", "internal/outside", "internal/dnscheck", "internal/dnspeer", "internal/vmtest"}

// owners lists the packages that may import a library; whatever is not listed
// here may be imported by nobody.
var owners = map[string][]string{
	"github.com/miekg/dns":                {"dns"},
	"github.com/cilium/ebpf":              {"ebpf", "ebpf/answers"},
	"github.com/vishvananda/netlink":      {"internal/hostnet", "lb/ipvs", "internal/testnet"},
	"github.com/vishvananda/netns":        {"internal/hostnet", "lb/ipvs", "internal/testnet"},
	"github.com/moby/ipvs":                {"lb/ipvs"},
	"github.com/google/nftables":          {"lb/ipvs"},
	"github.com/go-zookeeper/zk":          {"watcher/zk", "watcher/zk/zktest"},
	"github.com/maypok86/otter/v2":        {"dns/forward"},
	"github.com/spf13/cobra":              {"cmd/waggle"},
	"github.com/spf13/pflag":              {"cmd/waggle"},
	"go.yaml.in/yaml/v3":                  {"cmd/waggle", "watcher/file"},
	"github.com/prometheus/client_golang": {"*"},
	"github.com/prometheus/client_model":  {"api"},
	"go.uber.org/zap":                     {"*"},
	"golang.org/x/sync":                   {"*"},
	"golang.org/x/sys":                    {"*"},
}

// inTests are the libraries that every test may use on top.
var inTests = []string{"github.com/google/go-cmp", "go.uber.org/goleak", "github.com/miekg/dns", "golang.org/x/net"}

type source struct {
	path string // relative to the module's root
	pkg  string // its folder
	test bool
	file *ast.File
	fset *token.FileSet
}

func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var out []source
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		out = append(out, source{rel, filepath.ToSlash(filepath.Dir(rel)), strings.HasSuffix(path, "_test.go"), f, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("found %d files only: is this the module's root?", len(out))
	}
	return out
}

func imports(s source) []string {
	var out []string
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		out = append(out, p)
	}
	return out
}

// within reports whether import path p is, or is below, one of roots.
func within(p string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return p == r || strings.HasPrefix(p, r+"/") })
}

func TestPackagesImportOnlyLowerRanks(t *testing.T) {
	for _, s := range sources(t) {
		rank, ok := ranks[s.pkg]
		if !ok {
			t.Errorf("%s: package %s has no rank: give it one here and a line in docs/ARCHITECTURE.md", s.path, s.pkg)
			continue
		}
		for _, p := range imports(s) {
			dep, ours := strings.CutPrefix(p, "waggle/")
			if !ours || dep == s.pkg {
				continue
			}
			if slices.Contains(testOnly, dep) {
				if !s.test && s.pkg != "bench" && !slices.Contains(testOnly, s.pkg) {
					t.Errorf("%s imports %s, which is for tests", s.path, dep)
				}
				continue
			}
			if ranks[dep] >= rank {
				t.Errorf("%s (rank %d) imports %s (rank %d)", s.path, rank, dep, ranks[dep])
			}
			if dep == "internal/devcluster" && !s.test && s.pkg != "bench" && s.pkg != "cmd/waggle" {
				t.Errorf("%s imports the development cluster", s.path)
			}
		}
	}
}

func TestEachLibraryHasItsOwner(t *testing.T) {
	for _, s := range sources(t) {
		for _, p := range imports(s) {
			if !strings.Contains(strings.Split(p, "/")[0], ".") || s.test && within(p, inTests) {
				continue // the standard library, our own, or a test's
			}
			var allowed []string
			for lib, who := range owners {
				if within(p, []string{lib}) {
					allowed = who
				}
			}
			if !slices.Contains(allowed, "*") && !slices.Contains(allowed, s.pkg) && s.pkg != "bench" {
				t.Errorf("%s imports %s, which belongs to %v", s.path, p, allowed)
			}
		}
	}
}

func TestTheModelImportsTheStandardLibraryOnly(t *testing.T) {
	for _, s := range sources(t) {
		if s.pkg != "model" || s.test {
			continue
		}
		for _, p := range imports(s) {
			if strings.Contains(strings.Split(p, "/")[0], ".") || strings.HasPrefix(p, "waggle/") {
				t.Errorf("%s imports %s", s.path, p)
			}
		}
	}
}

func TestHouseRules(t *testing.T) {
	for _, s := range sources(t) {
		if ast.IsGenerated(s.file) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s: func init", s.fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				checkCall(t, s, n)
			}
			return true
		})
	}
}

func checkCall(t *testing.T, s source, n *ast.SelectorExpr) {
	x, ok := n.X.(*ast.Ident)
	if !ok {
		return
	}
	at := s.fset.Position(n.Pos())
	switch x.Name + "." + n.Sel.Name {
	case "time.Sleep":
		t.Errorf("%s: time.Sleep; wait on a timer and the context, or poll with a deadline", at)
	case "os.Exit", "log.Fatal":
		if filepath.Base(s.path) != "main.go" && !s.test {
			t.Errorf("%s: only main exits the process", at)
		}
	case "prometheus.DefaultRegisterer", "prometheus.MustRegister", "zap.L", "zap.S", "zap.ReplaceGlobals":
		t.Errorf("%s: no global registry or logger", at)
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test || s.pkg == "internal/arch" {
			said[s.pkg] = said[s.pkg] || s.file.Doc != nil
		}
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("package %s has no comment", pkg)
		}
	}
}

func TestEveryDecisionHasANumberAndATitle(t *testing.T) {
	files, err := os.ReadDir("../../docs/decisions")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, f := range files {
		num, _, ok := strings.Cut(f.Name(), "-")
		if _, err := strconv.Atoi(num); !ok || err != nil || len(num) != 4 {
			t.Errorf("docs/decisions/%s does not start with a number of four digits", f.Name())
		}
		if other := seen[num]; other != "" {
			t.Errorf("docs/decisions: %s and %s share a number", other, f.Name())
		}
		seen[num] = f.Name()
	}
}
