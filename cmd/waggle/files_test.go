package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"waggle/watcher/mesos/mesostest"
)

// TestFilesAreServedBesideTheScheduler has services in a folder and tasks of a
// master: names and VIPs of both, merged, changed by rename, edit and removal.
func TestFilesAreServedBesideTheScheduler(t *testing.T) {
	n := newNode(t)
	port := n.greeter(t)
	dir := filepath.Join(n.state, "services.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name string, services ...string) {
		t.Helper()
		text := "services:\n"
		for _, s := range services {
			text += fmt.Sprintf("- {name: %s, addresses: [%s], ports: [{port: %d, vip: '/%s:80'}]}\n", s, n.addr, port, s)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put("db.yaml", "db")
	var master *mesostest.Master
	n.Must(t, func() error { master = mesostest.Serve(n.picture(port, "web")); return nil })
	t.Cleanup(master.Close)
	n.start(t, n.verb("run", "--mesos.masters", master.Addr().String(), "--file.paths", dir)...)

	web, db := n.up(t, "web.marathon", 1), n.up(t, "db.static", 1)
	for name, at := range map[string]string{"web.marathon.mesos.": "web", "db.static.mesos.": "db"} {
		if r := n.query(t, n.client, name, dns.TypeA); len(r.Answer) != 1 {
			t.Errorf("%s of %s: %v", name, at, r)
		}
	}
	if err := n.greeted(db); err != nil {
		t.Errorf("through the VIP of a file: %v", err)
	}
	put("db.yaml", "db", "cache")
	n.up(t, "cache.static", 1)

	// One that makes no sense keeps what it said, and says where it is wrong.
	if err := os.WriteFile(filepath.Join(dir, "db.yaml"), []byte("services:\n- {name: db\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the status names the file", func() bool {
		st := n.status(t)
		return st.Source.Files != nil && strings.Contains(st.Source.Files.Error, "db.yaml") && st.Ready
	})
	n.up(t, "cache.static", 1)
	if err := os.Remove(filepath.Join(dir, "db.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the services of a removed file are gone", func() bool {
		_, served := n.vips(t)["db.static"]
		return !served
	})
	if err := n.greeted(web); err != nil {
		t.Errorf("the scheduler's task: %v", err)
	}
}

// TestFilesAloneAreEnough needs no scheduler.
func TestFilesAloneAreEnough(t *testing.T) {
	n := newNode(t)
	port := n.greeter(t)
	path := filepath.Join(n.state, "services.json")
	text := fmt.Sprintf(`{"services": [{"name": "db", "addresses": ["%s"], "ports": [{"port": %d, "vip": "10.7.7.7:80"}]}]}`, n.addr, port)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n.start(t, n.verb("run", "--file.paths", path)...)
	eventually(t, "the VIP of the file is balanced", func() bool {
		v, ok := n.vips(t)[""]
		return ok && v.Address.String() == "10.7.7.7"
	})
	if st := n.status(t); !st.Ready || len(st.Reasons) != 0 {
		t.Errorf("status: %+v", st)
	}
}
