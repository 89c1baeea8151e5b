package api

import (
	"bytes"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"waggle/model"
)

func TestThePageAsksNobodyElse(t *testing.T) {
	s := newTestServer(t, Config{}, newCluster().now)
	for path, kind := range map[string]string{"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css"} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		policy := w.Header().Get("Content-Security-Policy")
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		if strings.Contains(w.Body.String(), "://") || strings.Contains(w.Body.String(), "innerHTML") {
			t.Errorf("%s names another host, or makes markup of text", path)
		}
	}
	if code, _ := get(s.Handler(), "/index.html"); code != 404 {
		t.Errorf("/index.html: %d", code)
	}
}

// hosts has an app with three tasks, of which the first is unhealthy or not.
func (c *cluster) hosts(name string, down bool) {
	c.app(name, 7, 3)
	if !down {
		return
	}
	for key, a := range c.apps.Groups().All() {
		if key.Name == name {
			t := *a.Tasks[0]
			t.Health = model.Unhealthy
			next := *a
			next.Tasks = append(next.Tasks[:0:0], a.Tasks...)
			next.Tasks[0] = &t
			c.apps.Set(key, &next)
		}
	}
}

func TestThePageShowsABackendGoDownAndFindsIt(t *testing.T) {
	c := newCluster()
	for i := range 40 {
		c.app(fmt.Sprintf("app-%02d", i), i, 1+i%4)
	}
	c.hosts("memcached", false)
	c.turn()
	_, base := serve(t, c, time.Minute)
	b := newBrowser(t)
	b.open(base + "/")
	b.view(1100, 800, "light")
	b.shows("all VIPs and that it is live", `document.querySelector("#count").textContent === "41 VIPs" && document.querySelector("#live").textContent === "live"`)
	b.shows("that the node is ready", `document.querySelector("#ready").textContent.startsWith("ready")`)

	const rows = `[...document.querySelectorAll("#list .row")]`
	b.eval(`{ const s = document.querySelector("#search"); s.value = "memc"; s.dispatchEvent(new Event("input")); }`, nil)
	b.shows("the one that is searched for", rows+`.length === 1 && `+rows+`[0].innerText.includes("memcached.marathon:80") && `+rows+`[0].innerText.includes("3/3 up")`)
	b.eval(rows+`[0].click()`, nil)
	b.shows("its backends", `document.querySelectorAll("#detail tbody tr").length === 3`)

	c.hosts("memcached", true)
	c.turn()
	b.shows("that a backend went down", rows+`[0].innerText.includes("2/3 up") && document.querySelector("#detail tbody").innerText.includes("unhealthy")`)
	b.eval(`{ const s = document.querySelector("#search"); s.value = ""; s.dispatchEvent(new Event("input")); document.querySelector("#unwell").click(); }`, nil)
	b.shows("only what is unwell", rows+`.length === 1 && document.querySelector("#count").textContent === "1 of 41 VIPs"`)
	b.eval(`document.querySelector("#unwell").click()`, nil)
	b.shows("all again", rows+`.length > 5`)
	b.shoot("page.png")

	for _, scheme := range []string{"light", "dark"} {
		b.view(360, 740, scheme)
		var over bool
		b.eval(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(document.documentElement.scrollWidth > innerWidth))))`, &over)
		if over {
			t.Errorf("on a phone, the page is wider than the screen")
		}
		b.looks(scheme)
	}
	c.app("memcached", 0, 0)
	c.turn()
	b.shows("that the VIP is gone", `document.querySelector("#count").textContent === "40 VIPs" && document.querySelector("#detail h2").textContent === "This VIP is gone"`)

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.asked {
		if !strings.HasPrefix(url, base) && !strings.HasPrefix(url, "data:") {
			t.Errorf("the page asks %s", url)
		}
	}
	if len(b.errors) > 0 {
		t.Errorf("errors: %v", b.errors)
	}
}

// looks fails unless the background is light or dark as asked.
func (b *browser) looks(scheme string) {
	b.t.Helper()
	img, err := png.Decode(bytes.NewReader(b.shoot("page-" + scheme + ".png")))
	if err != nil {
		b.t.Fatal(err)
	}
	r, _, _, _ := img.At(3, img.Bounds().Max.Y-3).RGBA()
	if dark := r < 0x8000; dark != (scheme == "dark") {
		b.t.Errorf("%s: the background's red is %#x", scheme, r)
	}
}

// With 10 000 VIPs the page goes on answering: only what is in sight is in the
// document, and a storm of changes keeps nobody from typing.
func TestThePageCarriesTenThousandVIPs(t *testing.T) {
	const many = 10_000
	c := newCluster()
	for i := range many {
		c.app(fmt.Sprintf("app-%05d", i), i%60000, 2)
	}
	c.turn()
	_, base := serve(t, c, time.Minute)
	b := newBrowser(t)
	b.open(base + "/")
	b.shows("all VIPs", `document.querySelector("#count").textContent === "10000 VIPs"`)
	var n int
	b.eval(`document.querySelectorAll("*").length`, &n)
	if n > 1000 {
		t.Errorf("%d elements in the page for %d VIPs", n, many)
	}
	b.eval(`document.querySelector("#list").scrollTop = 1e9`, nil)
	b.shows("the last ones", `[...document.querySelectorAll("#list .row")].some((r) => r.innerText.includes("app-09999"))`)
	// A storm of changes while somebody types.
	b.eval(`{ window.longest = 0; let last = performance.now();
		const tick = () => { const now = performance.now(); window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(tick); }; tick(); }`, nil)
	for step := range 5 {
		for i := range 200 {
			c.app(fmt.Sprintf("app-%05d", step*200+i), 1000+i, 1)
		}
		c.turn()
		b.eval(fmt.Sprintf(`{ const s = document.querySelector("#search"); s.value = "app-0%d"; s.dispatchEvent(new Event("input")); }`, step), nil)
	}
	b.eval(`{ const s = document.querySelector("#search"); s.value = "app-00999"; s.dispatchEvent(new Event("input")); }`, nil)
	b.shows("the last change", `document.querySelectorAll("#list .row").length === 1 && document.querySelector("#list .row").innerText.includes("1/1 up")`)
	var longest float64
	b.eval(`window.longest`, &longest)
	t.Logf("the longest pause between two frames was %.0f ms", longest)
}
