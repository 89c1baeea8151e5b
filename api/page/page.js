// The status page: lists are taken once, then kept by the stream of changes. Of
// the VIPs only the rows in sight are in the document, so that there may be many.
"use strict";

const $ = (id) => document.getElementById(id);
const vips = new Map(); // by address, port and protocol
let shown = []; // those that the search lets through, sorted
let rates = new Map(); // of the last pulse, by the same key
let selected = "", status = null, skew = 0, stream = null, drawing = false, stale = false;

const key = (v) => v.address + " " + v.port + "/" + v.protocol;
const hostPort = (v) => (v.address.includes(":") ? "[" + v.address + "]" : v.address) + ":" + v.port;
const title = (v) => v.name ? v.name.replace(/\.l4lb\..*$/, "") + ":" + v.port : hostPort(v);
const taking = (v) => v.backends.filter((b) => b.state === "up" && !b.ejected).length;

// put keeps with a VIP what it is searched and sorted by.
function put(v) {
  v.text = [v.name, hostPort(v), v.label, v.framework, ...v.backends.flatMap((b) => [b.address, b.task, b.agent])].join(" ").toLowerCase();
  v.order = (v.name || "\uffff") + " " + key(v);
  vips.set(key(v), v);
}

// Everything that changes is drawn at most once a frame.
function draw(all) {
  stale = stale || all;
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (stale) sift();
    stale = false;
    rows();
    detail();
  });
}

function sift() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean), unwell = $("unwell").checked;
  shown = [...vips.values()].filter((v) => words.every((w) => v.text.includes(w)) && (!unwell || taking(v) < v.backends.length || !v.backends.length));
  shown.sort((a, b) => (a.order < b.order ? -1 : 1));
  $("count").textContent = shown.length === vips.size ? vips.size + " VIPs" : shown.length + " of " + vips.size + " VIPs";
}

function element(name, text, className) {
  const e = document.createElement(name);
  e.textContent = text;
  if (className) e.className = className;
  return e;
}

const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));

function rows() {
  const list = $("list"), space = $("space");
  const height = rowHeight();
  space.style.height = shown.length * height + "px"; // first, for the list is as high as it, up to a limit
  const from = Math.max(0, Math.floor(list.scrollTop / height) - 5), to = Math.min(shown.length, from + Math.ceil(list.clientHeight / height) + 10);
  space.replaceChildren(...shown.slice(from, to).map((v, i) => row(v, (from + i) * height)));
}

function row(v, top) {
  const r = element("div", "", "row"), up = taking(v), rate = rates.get(key(v));
  r.style.top = top + "px";
  r.dataset.key = key(v);
  r.setAttribute("role", "option");
  r.setAttribute("aria-selected", key(v) === selected);
  r.append(element("span", title(v)), element("span", hostPort(v) + "/" + v.protocol),
    element("span", up + "/" + v.backends.length + " up", up === 0 ? "bad" : up < v.backends.length ? "warn" : "good"), element("span", rateText(rate)));
  return r;
}

function rateText(r) {
  if (!r) return "";
  const wrong = r.refused + r.failed;
  return number(r.connections) + (wrong ? " (" + number(wrong) + " failed)" : "");
}

const number = (n) => (n >= 100 ? Math.round(n).toString() : n.toPrecision(2).replace(/\.?0+$/, ""));

function detail() {
  const v = vips.get(selected), d = $("detail");
  d.hidden = !selected;
  if (!selected) return;
  d.querySelector("h2").textContent = v ? v.name || hostPort(v) : "This VIP is gone";
  d.querySelector("p").textContent = v ? [hostPort(v) + "/" + v.protocol, v.label, v.framework, ...(v.options || [])].join(" · ") : "";
  d.querySelector("tbody").replaceChildren(...(v ? v.backends : []).map((b) => {
    const r = document.createElement("tr"), state = b.ejected ? "ejected" : b.state;
    r.append(element("td", hostPort(b)), element("td", state, state === "up" ? "good" : state === "draining" ? "warn" : "bad"),
      element("td", b.weight), element("td", b.task), element("td", b.agent));
    return r;
  }));
}

// ago is how long before the daemon's now a time is.
function ago(time) {
  const s = Math.max(0, Math.round((Date.now() + skew - Date.parse(time)) / 1000));
  if (!Number.isFinite(s) || time.startsWith("0001")) return "never";
  return (s < 120 ? s + " s" : s < 7200 ? Math.round(s / 60) + " min" : s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " days") + " ago";
}

function card(id, lines) {
  const c = $(id);
  c.replaceChildren(c.firstElementChild, ...lines.filter(Boolean).map(([text, className]) => element("dd", text, className)));
}

function state() {
  if (!status) return;
  const s = status, src = s.source, z = src.zookeeper, m = src.marathon, f = src.files;
  $("ready").textContent = s.ready ? (s.reasons.length ? "ready, with troubles" : "ready") : "not ready";
  $("ready").className = "badge " + (s.ready ? (s.reasons.length ? "warn" : "good") : "bad");
  $("version").textContent = s.version;
  $("reasons").hidden = !s.reasons.length;
  $("reasons").replaceChildren(...s.reasons.map((r) => element("li", r)));
  card("sources", [
    src.leader || src.error || src.connected ? [src.connected ? "following " + src.leader : "not following a master", src.connected ? "good" : "bad"] : null,
    src.published && ["last change " + ago(src.published)],
    src.last_event && ["last word of the master " + ago(src.last_event)],
    src.restored && ["from the disk, of " + ago(src.restored), "warn"],
    src.error && [src.error, "bad"],
    z && ["ZooKeeper " + (z.connected ? "connected" : "not connected") + " since " + ago(z.since) + ", " + z.masters + " masters", z.connected ? "" : "bad"],
    m && ["Marathon " + (m.connected ? m.host + ", last word " + ago(m.last_event) : "not connected " + (m.error || "")), m.connected ? "" : "bad"],
    f && [f.files + " files, read " + ago(f.read), f.error ? "bad" : ""],
  ]);
  card("serves", [
    [s.counts.vips + " VIPs, " + s.counts.names + " names"],
    [s.counts.apps + " apps, " + s.counts.tasks + " tasks, " + s.counts.agents + " agents"],
    [s.counts.problems + " problems", s.counts.problems ? "warn" : "quiet"],
  ]);
  card("balancer", [
    [s.balancer.kind, s.balancer.kind === "none" ? "bad" : "good"], [s.balancer.chosen, "quiet"],
    s.balancer.error && [s.balancer.error, "bad"],
    s.balancer.self_test && [s.balancer.self_test.error ? "self-test: " + s.balancer.self_test.error : "self-test passed " + ago(s.balancer.self_test.at), s.balancer.self_test.error ? "bad" : ""],
    s.balancer.ejected && [s.balancer.ejected.length + " backends ejected", "warn"],
  ]);
}

function traffic(t) {
  rates = new Map(t.vips.map((v) => {
    const at = v.address.lastIndexOf(":");
    return [v.address.slice(0, at).replace(/^\[|\]$/g, "") + " " + v.address.slice(at + 1) + "/" + v.protocol, v];
  }));
  const wrong = (code) => code !== "NOERROR" && code !== "NXDOMAIN";
  card("dns", t.seconds === 0 ? [["counting", "quiet"]] : [
    [number(t.queries) + " queries"],
    ...Object.entries(t.rcodes).sort().map(([code, n]) => [number(n) + " " + code, wrong(code) ? "bad" : "quiet"]),
    ...Object.entries(t.forward).sort().map(([what, n]) => [number(n) + " of others: " + what, what === "failed" || what === "shed" ? "bad" : "quiet"]),
  ]);
}

// load takes all VIPs anew, in pages, and returns from where to follow them.
async function load() {
  const fresh = [];
  let from = "";
  for (let next = "v2/vips?limit=2000"; next;) {
    const answer = await fetch(next);
    if (!answer.ok) throw new Error((await answer.json()).error);
    from = from || answer.headers.get("Waggle-Sequence");
    fresh.push(...await answer.json());
    const link = /<\/([^>]*)>; rel="next"/.exec(answer.headers.get("Link") || "");
    next = link && link[1];
  }
  vips.clear();
  fresh.forEach(put);
  draw(true);
  return from;
}

function follow(from) {
  stream = new EventSource("v2/changes?topics=vips,traffic&after=" + encodeURIComponent(from));
  const says = (text, className) => { $("live").textContent = text; $("live").className = className; };
  stream.onopen = () => says("live", "good");
  stream.onerror = () => {
    says("not connected, what is shown is old", "bad");
    if (stream.readyState === EventSource.CLOSED) setTimeout(start, 2000);
  };
  stream.addEventListener("vips", (e) => {
    const c = JSON.parse(e.data);
    if (c.vip) put(c.vip);
    else if (c.gone) vips.delete(key(c.gone));
    draw(true);
  });
  stream.addEventListener("traffic", (e) => {
    const pulse = JSON.parse(e.data);
    skew = Date.parse(pulse.traffic.at) - Date.now();
    status = pulse.status;
    state();
    traffic(pulse.traffic);
    draw(false);
  });
  stream.addEventListener("reset", () => load().catch(again));
}

function again(error) {
  $("live").textContent = error.message;
  $("live").className = "bad";
  if (stream) stream.close();
  setTimeout(start, 2000);
}

function start() {
  if (stream) stream.close();
  load().then(follow).catch(again);
}

$("search").addEventListener("input", () => { $("list").scrollTop = 0; draw(true); });
$("unwell").addEventListener("input", () => draw(true));
$("list").addEventListener("scroll", () => draw(false));
addEventListener("resize", () => draw(false));
$("list").addEventListener("click", (e) => {
  const r = e.target.closest(".row");
  if (r) { selected = r.dataset.key === selected ? "" : r.dataset.key; draw(false); }
});
$("list").addEventListener("keydown", (e) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
  if (!step || !shown.length) return;
  e.preventDefault();
  const at = shown.findIndex((v) => key(v) === selected), to = Math.min(shown.length - 1, Math.max(0, at + step));
  selected = key(shown[to]);
  const height = rowHeight(), list = $("list");
  list.scrollTop = Math.min(Math.max(list.scrollTop, (to + 1) * height - list.clientHeight), to * height);
  draw(false);
});
setInterval(state, 1000);
start();
