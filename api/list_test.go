package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// whole asks for a list in pages of n and joins them.
func whole(t *testing.T, h http.Handler, path string) (pages int, out []any) {
	t.Helper()
	for next := path; next != ""; pages++ {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, next, nil))
		var list []any
		if err := json.Unmarshal(w.Body.Bytes(), &list); w.Code != http.StatusOK || err != nil {
			t.Fatalf("%s: %d %v %s", next, w.Code, err, w.Body)
		}
		out = append(out, list...)
		next, _, _ = strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
	}
	return pages, out
}

func TestPagesTogetherAreTheWholeList(t *testing.T) {
	c := newCluster()
	for i := range 23 {
		c.app(fmt.Sprint("app", i), i, 1+i%3)
	}
	c.turn()
	s := newTestServer(t, Config{VIPZone: "l4lb.thisdcos.directory"}, c.now)
	for _, list := range []string{"/v2/vips", "/v2/records", "/v2/tasks"} {
		_, all := whole(t, s.Handler(), list)
		for _, n := range []int{1, 2, 7, len(all), len(all) + 1} {
			pages, got := whole(t, s.Handler(), fmt.Sprintf("%s?limit=%d", list, n))
			if d := cmp.Diff(all, got); d != "" || pages != (len(all)+n-1)/n {
				t.Errorf("%s by %d: %d pages %s", list, n, pages, d)
			}
		}
		_, some := whole(t, s.Handler(), list+"?limit=2&q=APP7")
		if len(some) == 0 || len(some) >= len(all) {
			t.Errorf("%s with APP7: %d of %d", list, len(some), len(all))
		}
	}
	if _, rest := whole(t, s.Handler(), "/v2/vips?after=app8.marathon.l4lb.thisdcos.directory."); len(rest) != 2 {
		t.Errorf("from a name on: %v", rest)
	}
}

func TestWhatIsNotThereIsNotFoundAndWhatIsWrongIsSaid(t *testing.T) {
	c := newCluster()
	c.app("web", 1, 2)
	c.turn()
	s := newTestServer(t, Config{VIPZone: "l4lb.thisdcos.directory"}, c.now)
	address := VIPs(c.now().Table, nil, "z")[0].Address.String()
	for path, want := range map[string]int{
		"/v2/vips?limit=0": 400, "/v2/vips?limit=x": 400, "/v2/tasks?limit=100000": 400, "/v2/records?after=%25zz": 400,
		"/v2/vips/web.marathon": 200, "/v2/vips/web.marathon.l4lb.thisdcos.directory": 200, "/v2/vips/" + address: 200,
		"/v2/vips/nobody": 404, "/v2/records/WEB.marathon.mesos": 200, "/v2/records/marathon.mesos.": 200, "/v2/records/nobody.mesos": 404,
		"/v2/nothing": 404, "/v2/explain": 400,
	} {
		code, body := get(s.Handler(), path)
		var f Failure
		if err := json.Unmarshal([]byte(body), &f); code != want || (code != 200) != (err == nil && f.Error != "") {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v2/vips", nil))
	if w.Header().Get("Waggle-Total") != "1" || w.Header().Get("Waggle-Sequence") == "" {
		t.Errorf("headers: %v", w.Header())
	}
}

// A place in a list comes back from its text, and no text is taken for another.
func FuzzPlacesInLists(f *testing.F) {
	for _, text := range []string{"a", "a,b", ",", "%2C,%25", "%zz", "web.marathon.l4lb.thisdcos.directory.,0.00,00080,tcp"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := parseKey(text)
		if err != nil || key == nil {
			return
		}
		again, err := parseKey(formatKey(key))
		if formatKey(key) == "" {
			return // an empty name alone is the beginning
		}
		if d := cmp.Diff(key, again); err != nil || d != "" {
			t.Errorf("%q: %v %s", text, err, d)
		}
	})
}
