package api

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"waggle/internal/testnet"
)

// browser is one tab of a headless Chromium, driven over its debugging pipe:
// messages of the DevTools protocol, each with a NUL behind it.
type browser struct {
	t       *testing.T
	to      *os.File
	session string

	mu      sync.Mutex // guards the following
	last    int
	waiting map[int]chan message
	asked   []string // addresses of requests
	errors  []string // exceptions, and what the policy forbade
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct{ Message string }
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		testnet.Skip(t, "needs chromium")
	}
	in, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--user-data-dir="+dir, "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{in, out} // 3 and 4
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	b := &browser{t: t, to: to, waiting: map[int]chan message{}}
	done := make(chan struct{})
	go func() { defer close(done); b.read(from) }()
	t.Cleanup(func() {
		to.Close() // the end of the pipe is the end of the browser
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		from.Close()
		<-done
	})
	return b
}

// read takes what the browser says until it ends.
func (b *browser) read(from io.Reader) {
	in := bufio.NewReader(from)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &m) != nil {
			continue
		}
		b.mu.Lock()
		switch m.Method {
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			_ = json.Unmarshal(m.Params, &p)
			b.asked = append(b.asked, p.Request.URL)
		case "Runtime.exceptionThrown", "Log.entryAdded":
			b.errors = append(b.errors, fmt.Sprintf("%.600s", m.Params))
		case "":
			if c := b.waiting[m.ID]; c != nil {
				delete(b.waiting, m.ID)
				c <- m
			}
		}
		b.mu.Unlock()
	}
}

// call asks for something and returns the answer.
func (b *browser) call(method string, params any) json.RawMessage {
	b.t.Helper()
	b.mu.Lock()
	b.last++
	id, c := b.last, make(chan message, 1)
	b.waiting[id] = c
	b.mu.Unlock()
	ask := map[string]any{"id": id, "method": method, "params": params}
	if b.session != "" {
		ask["sessionId"] = b.session
	}
	text, err := json.Marshal(ask)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	select {
	case m := <-c:
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		return m.Result
	case <-time.After(time.Minute):
		b.t.Fatalf("%s: no answer within a minute", method)
	}
	return nil
}

// open loads a page in a tab of its own.
func (b *browser) open(url string) {
	b.t.Helper()
	var target string
	field(b.t, b.call("Target.createTarget", map[string]any{"url": "about:blank"}), "targetId", &target)
	field(b.t, b.call("Target.attachToTarget", map[string]any{"targetId": target, "flatten": true}), "sessionId", &b.session)
	for _, of := range []string{"Network", "Runtime", "Log", "Page"} {
		b.call(of+".enable", map[string]any{})
	}
	b.call("Page.navigate", map[string]any{"url": url})
}

func field(t *testing.T, of json.RawMessage, name string, into any) {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(of, &all); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(all[name], into); err != nil {
		t.Fatalf("%s of %.300s: %v", name, of, err)
	}
}

// eval runs JavaScript in the page; into may be nil.
func (b *browser) eval(script string, into any) {
	b.t.Helper()
	var result struct{ Value json.RawMessage }
	answer := b.call("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "awaitPromise": true})
	var failed struct{ ExceptionDetails json.RawMessage }
	if err := json.Unmarshal(answer, &failed); err != nil || failed.ExceptionDetails != nil {
		b.t.Fatalf("%s: %v %s", script, err, failed.ExceptionDetails)
	}
	field(b.t, answer, "result", &result)
	if into == nil {
		return
	}
	if err := json.Unmarshal(result.Value, into); err != nil {
		b.t.Fatalf("%s: %s: %v", script, result.Value, err)
	}
}

// shows waits until a condition of the page holds, for up to a minute. Until the
// page is there, what it has not makes no error.
func (b *browser) shows(what, condition string) {
	b.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		var ok bool
		if b.eval(`(() => { try { return !!(`+condition+`) } catch { return false } })()`, &ok); ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			var text string
			b.eval("document.body.innerText.slice(0, 3000)", &text)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.t.Fatalf("a minute passed without: %s. The page shows:\n%s\nerrors: %.2000s", what, text, fmt.Sprint(b.errors))
		}
	}
}

// view makes the page as wide and high as a screen, and light or dark.
func (b *browser) view(width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

// shoot saves what the page looks like, where WAGGLE_SCREENSHOTS names a folder.
func (b *browser) shoot(name string) []byte {
	b.t.Helper()
	var data string
	field(b.t, b.call("Page.captureScreenshot", map[string]any{"format": "png"}), "data", &data)
	png, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		b.t.Fatal(err)
	}
	if dir := os.Getenv("WAGGLE_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	return png
}
