/* Charts, liveness, theme, keys. No dependency but uPlot and htmx, both optional: every page works without this file.
   Colours come from the CSS tokens and follow the theme. */
(() => {
  "use strict";
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("tidegate-theme"); } catch { return null; } };
  const theme = new URLSearchParams(location.search).get("theme") || stored();
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const switchTheme = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("tidegate-theme", root.dataset.theme); } catch { /* private window: for this page only */ }
    drawAll();
  };

  /* ---- charts */
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const token = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const day = (t) => new Date(t * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  const hour = (t) => new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
  const short = (v) => v >= 1e6 ? v / 1e6 + " M" : v >= 1000 ? v / 1000 + " k" : String(v);
  const family = () => getComputedStyle(document.body).fontFamily;
  const drawn = new WeakMap();

  const WHOLE = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((n) => [1, 2, 5].map((k) => k * 10 ** n));  // there are no half devices
  const NICE = [60, 300, 900, 3600, 7200, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000];
  function draw(figure, force) {
    const source = figure.querySelector("script").textContent;
    const box = figure.querySelector(".plot");
    const key = source + box.clientWidth + root.dataset.theme;
    if (!force && drawn.get(box) === key && box.firstChild) return;
    drawn.set(box, key);
    const d = JSON.parse(source);
    const narrow = box.clientWidth < 520;
    const font = `500 ${narrow ? 10 : 11}px ${family()}`;
    const c = { text: token("--text-3"), strong: token("--text-2"), grid: token("--line"), surface: token("--surface") };
    const stacked = d.kind === "stack";
    let rows = d.series.map((s) => s.y);
    if (stacked) {                                   // cumulative, painted from the top of the pile down
      const sum = d.x.map(() => 0);
      rows = rows.map((y) => y.map((v, i) => (sum[i] += v)));
    }
    const order = stacked ? [...rows.keys()].reverse() : [...rows.keys()];
    const write = (u) => {
      const { ctx } = u, px = uPlot.pxRatio, right = u.bbox.left + u.bbox.width, put = [];
      ctx.save(); ctx.font = font.replace(/(\d+)px/, (_, n) => n * px + "px"); ctx.textBaseline = "middle";
      d.series.forEach((s, k) => {
        const last = rows[k].length - 1, top = rows[k][last], low = stacked && k ? rows[k - 1][last] : 0;
        const text = stacked ? s.label : s.end;
        if (text && !(stacked && s.y[last] < 2)) put.push({ y: u.valToPos(stacked ? (top + low) / 2 : top, "y", true), text, color: stacked ? c.strong : token(s.color) });
      });
      put.sort((a, b) => a.y - b.y);
      put.forEach((p, n) => { if (n && p.y - put[n - 1].y < 14 * px) p.y = put[n - 1].y + 14 * px; });
      if (narrow && !stacked) put.forEach((p, n) => { p.y = u.bbox.top + u.bbox.height - (put.length - n - .3) * 14 * px; });
      ctx.textAlign = narrow ? "right" : "left";
      put.forEach((p) => {
        if (narrow && stacked) { ctx.strokeStyle = c.surface; ctx.lineWidth = 3 * px; ctx.strokeText(p.text, right - 6 * px, p.y); }
        ctx.fillStyle = p.color; ctx.fillText(p.text, narrow ? right - 6 * px : right + 8 * px, p.y);
      });
      ctx.textAlign = "left";
      const until = Array(narrow ? 3 : 4).fill(-1e9);
      d.marks.forEach((m) => {
        const x = u.valToPos(m.x, "x", true), w = ctx.measureText(m.label).width, flip = x + w + 8 * px > right;
        const from = flip ? x - w - 6 * px : x + 5 * px;
        const free = until.findIndex((end) => end <= from), level = Math.max(0, free);  // no room in any line: the mark alone
        ctx.strokeStyle = ctx.fillStyle = token(m.color); ctx.lineWidth = px; ctx.setLineDash([2 * px, 3 * px]);
        ctx.beginPath(); ctx.moveTo(x, u.bbox.top - (12 - 14 * level) * px); ctx.lineTo(x, u.bbox.top + u.bbox.height); ctx.stroke(); ctx.setLineDash([]);
        if (free >= 0) { ctx.fillText(m.label, from, u.bbox.top - (8 - 14 * level) * px); until[level] = from + w + 8 * px; }
      });
      ctx.restore();
    };
    const series = [{}].concat(order.map((k) => {
      const s = d.series[k], color = token(s.color);
      return stacked
        ? { label: s.label, fill: color, stroke: c.surface, width: 1, points: { show: false } }
        : { label: s.label, stroke: color, width: s.width, dash: s.dash ? [5, 4] : undefined, paths: s.step ? uPlot.paths.stepped({ align: 1 }) : undefined, points: { show: false } };
    }));
    const most = Math.max(1, ...rows.flat());
    const logs = [1, 10, 100, 1000, 10000, 100000, 1000000].filter((v, n, all) => v <= most || all[n - 1] < most);
    const span = d.x[d.x.length - 1] - d.x[0];
    box.replaceChildren();
    return new uPlot({
      width: box.clientWidth, height: box.clientHeight, padding: [22, narrow ? 8 : 112, 0, 0],
      legend: { show: false }, cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: d.log ? { distr: 3, range: [1, logs[logs.length - 1]] } : { range: [0, stacked ? 100 : most * 1.08] } },
      series,
      axes: [
        { stroke: c.text, font, grid: { show: false }, ticks: { stroke: c.grid, size: 4 }, size: 26, space: narrow ? 60 : 90, values: (_, v) => v.map(span < 2 * 86400 ? hour : day), incrs: NICE },
        { stroke: c.text, font, grid: { stroke: c.grid, width: 1 }, ticks: { show: false }, size: 46, space: 34, incrs: WHOLE, splits: d.log ? () => logs : stacked ? () => [0, 25, 50, 75, 100] : undefined, values: (_, v) => v.map((n) => stacked ? n + " %" : short(n)), filter: (_, v) => v },
      ],
      hooks: { draw: [write] },
      tzDate: (t) => uPlot.tzDate(new Date(t * 1e3), "UTC"),
    }, [d.x, ...order.map((k) => rows[k])], box);
  }
  const drawAll = (force = true) => { if (window.uPlot) document.querySelectorAll("figure[data-chart]").forEach((f) => draw(f, force)); };
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
  let wait;
  addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(() => drawAll(false), 120); });

  /* ---- live: the stream sends named fragments; this only watches over it */
  const live = () => document.querySelectorAll("[data-live]");
  let heard = Date.now();
  const fresh = () => { heard = Date.now(); live().forEach((e) => { if (e.classList.contains("stale")) { e.classList.remove("stale"); e.textContent = e.dataset.was || "live"; } }); };
  const stale = () => live().forEach((e) => {
    if (e.classList.contains("stale")) return;
    e.dataset.was = e.textContent; e.classList.add("stale");
    e.textContent = `as of ${new Date(heard).toISOString().slice(11, 19)}, reconnecting`;
  });
  document.body.addEventListener("htmx:sseOpen", (e) => { fresh(); e.detail.source?.addEventListener("beat", fresh); });
  document.body.addEventListener("htmx:sseError", stale);
  document.body.addEventListener("htmx:sseBeforeMessage", (e) => {     // never take a field from under the hands
    const at = document.activeElement;
    if ((at && at.matches("input, textarea, select") && e.target.contains(at)) || e.target.querySelector("details.act[open]")) e.preventDefault();
  });
  document.body.addEventListener("htmx:sseMessage", () => { fresh(); drawAll(false); });
  if (document.querySelector("[sse-connect]")) setInterval(() => { if (Date.now() - heard > 30000) stale(); }, 5000);

  /* ---- forms: one click is one command */
  document.addEventListener("submit", (e) => {
    const button = e.target.querySelector("button:not([type=button])");
    if (e.target.method !== "post" || !button) return;
    if (e.target.dataset.sent) { e.preventDefault(); return; }
    e.target.dataset.sent = "1";
    if ("halt" in e.target.dataset) button.textContent = "Halting…";
    button.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((f) => delete f.dataset.sent));
  document.querySelectorAll("[data-theme-switch]").forEach((b) => b.addEventListener("click", switchTheme));
  document.querySelectorAll("[data-print]").forEach((b) => { b.hidden = false; b.addEventListener("click", () => print()); });
  document.addEventListener("click", (e) => document.querySelectorAll("details.menu[open]").forEach((d) => { if (!d.contains(e.target)) d.open = false; }));

  /* ---- keys: never while typing, never the only way; they move focus, Enter acts */
  const go = { f: "/", r: "/rollouts", e: "/releases", d: "/devices", i: "/incidents" };
  const focus = (query) => { const e = document.querySelector(query); if (e) { e.focus(); e.scrollIntoView({ block: "nearest" }); } };
  const step = (by) => {
    const rows = [...document.querySelectorAll("main tbody th[scope=row] a, main .inbox h3 a")];
    const at = rows.indexOf(document.activeElement);
    rows[Math.min(rows.length - 1, Math.max(0, at + by))]?.focus();
  };
  let g = 0;
  addEventListener("keydown", (e) => {
    if (e.key === "Escape") document.querySelectorAll("details.menu[open], details.act[open]").forEach((d) => { d.open = false; });
    if (e.target.closest?.("input, textarea, select") || e.ctrlKey || e.metaKey || e.altKey) return;
    if (go[e.key] && Date.now() - g < 900) { location.href = go[e.key]; return; }
    switch (e.key) {
      case "/": e.preventDefault(); (document.querySelector("#q") || document.querySelector("#find"))?.focus(); break;
      case "H": focus("#halt"); break;
      case "p": focus("#pause"); break;
      case "w": focus("#why, #because"); break;
      case "t": switchTheme(); break;
      case "j": step(1); break;
      case "k": step(-1); break;
      case "n": document.querySelector("a[rel=next]")?.click(); break;
      case "b": history.back(); break;
      case "g": g = Date.now(); break;
    }
  });
})();
