// The page: a view for each address behind '#', drawn from the API and kept up by its events.

const main = document.getElementById("main");
const connection = document.getElementById("connection");
let token = sessionStorage.getItem("token") || "";
let leave = () => {}; // Ends what the present view has going on.

// --- the API --------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, view) {
    super(view.error || `the service answered ${status}`);
    this.status = status;
    this.problems = view.problems || [];
  }
}

async function api(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  throw new Refused(answer.status, await answer.json().catch(() => ({})));
}

const read = async (path) => (await api(path)).json();

// Server-sent events by fetch, since an EventSource cannot bear a token.
async function follow(path, heard, signal, last) {
  let ended = false;
  while (!signal.aborted && !ended) {
    try {
      const answer = await api(path, { headers: { "Last-Event-ID": last }, signal });
      say("");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        const events = blocks.map(parsed).filter(Boolean);
        if (events.length) last = events[events.length - 1].id;
        if (events.length) heard(events);
      }
      ended = true;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) throw error;
      say("the service does not answer; trying again");
      await pause(1500);
    }
  }
  return last; // The stream ends when the job is over, or when the service ends in order.
}

function parsed(block) {
  const event = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) event[line.slice(0, at)] = line.slice(at + 2);
  }
  return event.data ? { id: event.id, kind: event.event, data: JSON.parse(event.data) } : null;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const say = (text) => { connection.textContent = text; };

// --- elements -------------------------------------------------------------------------

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat(2).filter((child) => child != null));
  return made;
}

const show = (...children) => main.replaceChildren(...children.flat(2).filter((child) => child != null));
const state = (name) => el("span", { class: `state ${name.toLowerCase()}` }, name.toLowerCase());
const rate = (value) => (value == null ? "–" : value < 100 ? value.toPrecision(3) : value.toFixed(0));
const seconds = (value) => (value == null ? "–" : value.toPrecision(3));
const clock = (s) => (s == null ? "–" : new Date(1000 * s).toLocaleString());
const settingsText = (settings) => flat(settings).map(([k, v]) => `${k} ${v}`).join(", ") || "nothing set";

function flat(settings, prefix = "") {
  return Object.entries(settings).flatMap(([key, value]) =>
    value && typeof value === "object" ? flat(value, `${prefix}${key}.`) : [[prefix + key, value]]);
}

function fact(name, ...value) {
  return el("div", {}, el("span", { class: "quiet" }, name), el("b", {}, ...value));
}

function plot(node, traces, layout) {
  const base = {
    margin: { l: 52, r: 12, t: 30, b: 84 }, font: { family: "system-ui, sans-serif", size: 12 },
    legend: { orientation: "h", y: -0.28 }, showlegend: traces.length > 1, hovermode: "closest",
  };
  const drawn = JSON.stringify([traces, layout]);
  if (node.drawn === drawn) return;
  node.drawn = drawn;
  Plotly.react(node, traces, { ...base, ...layout }, { displaylogo: false });
  if (node.dataset.fits) return;
  // Its column may change without the window: beside a plot that comes or goes.
  node.dataset.fits = "yes";
  new ResizeObserver(() => node.clientWidth && Plotly.Plots.resize(node)).observe(node);
}

function problem(error) {
  return el("div", { class: "problems", role: "alert" }, el("p", {}, error.message),
    el("ul", {}, (error.problems || []).map((text) => el("li", {}, text))));
}

async function save(path, name) {
  const url = URL.createObjectURL(await (await api(path)).blob());
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// --- all jobs -------------------------------------------------------------------------

async function jobsView(signal) {
  const body = el("tbody");
  const empty = el("p", { class: "quiet" }, "No job yet. ", el("a", { href: "#/new" }, "Submit one."));
  const columns = ["job", "state", "trials", "now", "best, rps", "÷ baseline", "created"];
  show(el("h1", {}, "Jobs"), empty, el("div", { class: "wide" },
    el("table", {}, el("thead", {}, el("tr", {}, columns.map((c) => el("th", {}, c)))), body)));
  for (;;) {
    const { jobs } = await read("/v1/jobs");
    if (signal.aborted) return;
    say("");
    empty.hidden = jobs.length > 0;
    body.replaceChildren(...jobs.map((job) => el("tr", {},
      el("td", {}, el("a", { href: `#/jobs/${job.id}` }, job.name), el("div", { class: "quiet" }, job.id)),
      el("td", {}, state(job.state), job.place ? ` place ${job.place}` : ""),
      el("td", { class: "number" }, `${job.progress.trials_done}${job.progress.trials_most ? ` of ${job.progress.trials_most}` : ""}`),
      el("td", {}, nowText(job)),
      el("td", { class: "number" }, job.best ? rate(job.best.sustained_rps) : "–"),
      el("td", { class: "number" }, job.ratio ? job.ratio.toFixed(2) : "–"),
      el("td", {}, clock(job.created_s)))));
    await pause(2000);
    if (signal.aborted) return;
  }
}

function nowText(job) {
  if (job.state !== "running" && job.state !== "stopping") return job.reason || "";
  const p = job.progress;
  if (p.trial == null) return "starting";
  const at = p.rate_rps ? ` at ${rate(p.rate_rps)} rps` : "";
  const round = p.round == null ? "" : `, round ${p.round + 1} of ${p.rounds}`;
  return `trial ${p.trial}${round}: ${p.phase}${at}`;
}

// --- a new job ------------------------------------------------------------------------

function newView() {
  const text = el("textarea", { id: "spec", required: true, spellcheck: "false" });
  text.value = "name: my-model\nmodel:\n  archive: model.mar\n  requests: requests.jsonl\nsearch:\n  trials: 24\n  time_budget_s: 800\n";
  const archive = el("input", { id: "archive", type: "file", accept: ".mar" });
  const requests = el("input", { id: "requests", type: "file", accept: ".jsonl,.json" });
  const wrong = el("div");
  const button = el("input", { type: "submit", value: "Submit" });
  const send = async (event) => {
    event.preventDefault();
    button.disabled = true;
    wrong.replaceChildren();
    const form = new FormData();
    form.append("spec", text.value);
    if (archive.files[0]) form.append("archive", archive.files[0]);
    if (requests.files[0]) form.append("requests", requests.files[0]);
    try {
      const job = await (await api("/v1/jobs", { method: "POST", body: form })).json();
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      wrong.replaceChildren(problem(error));
      button.disabled = false;
    }
  };
  show(el("h1", {}, "New job"), el("form", { onsubmit: send },
    el("label", { for: "spec" }, "Specification (YAML or JSON)"), text,
    el("label", { for: "archive" }, "Archive, in the place of model.archive"), archive,
    el("label", { for: "requests" }, "Requests, in the place of model.requests"), requests,
    wrong, el("p", {}, button)));
}

// --- a job ----------------------------------------------------------------------------

const COLUMNS = [
  ["number", "trial", (t) => t.number], ["why", "why", (t) => t.why], ["state", "state", (t) => t.state],
  ["sustained_rps", "rps", (t) => t.sustained_rps ?? -1], ["p99_s", "p99 s", (t) => t.p99_s ?? -1],
  ["duration_s", "seconds", (t) => t.duration_s], ["settings", "settings", (t) => settingsText(t.settings)],
  ["cause", "cause", (t) => t.cause],
];

async function jobView(signal, id) {
  const path = `/v1/jobs/${id}`;
  let job = await read(path);
  let last = String(job.events_from);
  const trials = new Map((await read(`${path}/trials`)).trials.map((t) => [t.number, t]));
  if (signal.aborted) return;
  let windows = [];
  let current = null;
  const head = el("div");
  const now = el("p", { role: "status", id: "now" });
  const live = el("div", { class: "plot", role: "img", "aria-label": "Rate against offered load" });
  const history = el("div", { class: "plot", role: "img", "aria-label": "Rates by trial" });
  const table = trialTable(trials, id, () => job.best && job.best.number);
  const wrong = el("div");
  show(head, wrong, el("div", { class: "plots" }, live, history), el("h2", {}, "Trials"), table.node);

  const act = (name, work, options = {}) => el("button", {
    class: `act ${options.danger ? "danger" : ""}`, disabled: options.off, type: "button",
    onclick: async () => {
      wrong.replaceChildren();
      try { await work(); await refresh(); } catch (error) { wrong.replaceChildren(problem(error)); }
    },
  }, name);
  const over = () => ["finished", "stopped", "failed"].includes(job.state);

  const drawNow = () => {
    now.textContent = nowText(job) || (job.place ? `place ${job.place} in the queue` : "");
  };

  function drawHead() {
    const p = job.progress;
    // Whoever works by keyboard keeps the button that he is on.
    const at = [...head.querySelectorAll("button")].indexOf(document.activeElement);
    drawNow();
    head.replaceChildren(
      el("h1", {}, job.name, " ", state(job.state)),
      now,
      el("div", { class: "facts" },
        fact("trials", `${p.trials_done}${p.trials_most ? ` of at most ${p.trials_most}` : ""}`),
        fact(job.confirmed ? "best, confirmed" : "best", job.best ? `${rate(job.best.sustained_rps)} rps` : "–",
          " ", job.best ? el("a", { href: `#/jobs/${id}/trials/${job.best.number}`, class: "quiet" }, `trial ${job.best.number}`) : ""),
        fact("baseline", job.baseline ? `${rate(job.baseline.sustained_rps)} rps` : "–"),
        fact("÷ baseline", job.ratio ? job.ratio.toFixed(2) : "–")),
      el("div", { class: "buttons" },
        act("Stop", () => api(path, { method: "DELETE" }), { danger: true, off: over() || job.state === "stopping" }),
        act("Resume", () => api(`${path}/resume`, { method: "POST" }), { off: !over() }),
        act("Download the report", () => save(`${path}/report`, `${id}-report.html`), { off: !p.trials_done }),
        act("Download the files for production", () => save(`${path}/best.tar.gz`, `${id}-best.tar.gz`), { off: !over() || !job.best })),
      el("p", {}, Object.entries(job.links).map(([name, url]) => [el("a", { href: url, rel: "noreferrer" }, name), " "])));
    if (at >= 0) head.querySelectorAll("button")[at].focus();
  }

  function drawLive() {
    const offered = windows.filter((w) => w.offered_rps != null);
    const good = offered.filter((w) => !w.failed);
    const bad = offered.filter((w) => w.failed);
    const trace = (name, list, color) => ({
      name, type: "scatter", mode: "markers", marker: { color, size: 9 },
      x: list.map((w) => w.offered_rps), y: list.map((w) => w.answered_rps),
    });
    live.hidden = over();
    const most = Math.max(1, ...offered.map((w) => w.offered_rps));
    plot(live, [
      { name: "all answered", x: [0, most], y: [0, most], mode: "lines", line: { color: "#8b949e", dash: "dot", width: 1 }, hoverinfo: "skip" },
      trace("no failure", good, "#1a7f37"), trace("some failed", bad, "#cf222e"),
    ], { title: { text: current == null ? "no trial yet" : `trial ${current}`, font: { size: 13 } },
      xaxis: { title: { text: "offered, rps" }, rangemode: "tozero" }, yaxis: { title: { text: "answered, rps" }, rangemode: "tozero" } });
  }

  function drawHistory() {
    const list = [...trials.values()].sort((a, b) => a.number - b.number);
    const group = (name, wanted, height, color, symbol) => {
      const some = list.filter((t) => t.state === wanted);
      return { name, type: "scatter", mode: "markers", marker: { color, symbol, size: 8 }, x: some.map((t) => t.number), y: some.map(height), text: some.map((t) => settingsText(t.settings)) };
    };
    let best = 0;
    const steps = list.map((t) => (best = Math.max(best, t.sustained_rps || 0)));
    const shapes = job.baseline && job.baseline.sustained_rps ? [{ type: "line", xref: "paper", x0: 0, x1: 1,
      y0: job.baseline.sustained_rps, y1: job.baseline.sustained_rps, line: { color: "#0969da", dash: "dash", width: 1 } }] : [];
    plot(history, [
      group("sustained", "COMPLETE", (t) => t.sustained_rps, "#1a7f37", "circle"),
      group("pruned", "PRUNED", (t) => t.capacity_rps, "#8b949e", "x"),
      group("failed", "FAILED", () => 0, "#cf222e", "triangle-down"),
      { name: "best so far", x: list.map((t) => t.number), y: steps, mode: "lines", line: { color: "#1a7f37", shape: "hv", width: 1 }, hoverinfo: "skip" },
    ], { shapes, xaxis: { title: { text: "trial" }, dtick: list.length > 12 ? null : 1 }, yaxis: { title: { text: "rps" }, rangemode: "tozero" } });
  }

  async function refresh() {
    job = await read(path);
    if (signal.aborted) return;
    drawHead(); drawLive(); drawHistory(); table.draw();
  }

  drawHead(); drawLive(); drawHistory(); table.draw();
  for (;;) {
    last = await follow(`${path}/events`, (events) => {
      let changed = false, lives = false;
      for (const { kind, data } of events) {
        if (kind === "trial" || kind === "round") { current = data.number; windows = []; lives = true; }
        if (kind === "window" && (data.number ?? current) === current) { windows.push(data); lives = true; }
        if (kind === "result") { trials.set(data.number, data); table.forget(data.number); }
        if (kind === "phase") {
          job.progress = { ...job.progress, trial: data.number, phase: data.name, rate_rps: data.rate_rps };
        }
        if (kind === "round") job.progress = { ...job.progress, round: data.round };
        changed ||= kind === "state" || kind === "result" || kind === "confirmed";
      }
      drawNow();
      if (lives) drawLive();
      if (changed) refresh().catch(() => { drawHistory(); table.draw(); });
    }, signal, last);
    if (signal.aborted) return;
    await pause(1000);
    await refresh();
    while (over() && !signal.aborted) { await pause(2000); await refresh(); }
    if (signal.aborted) return;
  }
}

function trialTable(trials, id, best) {
  let by = 0, down = false, wanted = "";
  const rows = new Map();
  const body = el("tbody");
  const filter = el("input", { type: "text", id: "filter", oninput: (event) => { wanted = event.target.value.toLowerCase(); draw(); } });
  const heads = COLUMNS.map(([key, title], index) => el("th", { "aria-sort": "none", class: /_rps|_s$/.test(key) ? "number" : null },
    el("button", { type: "button", onclick: () => { down = by === index ? !down : false; by = index; draw(); } }, title)));
  const node = el("div", {}, el("label", { for: "filter" }, "Filter (settings, state, cause)"), filter,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Trials" },
      el("table", {}, el("thead", {}, el("tr", {}, heads)), body)));

  function row(trial) {
    return el("tr", {},
      el("td", {}, el("a", { href: `#/jobs/${id}/trials/${trial.number}` }, `${trial.number}`)),
      el("td", {}, trial.why), el("td", {}, state(trial.state)),
      el("td", { class: "number" }, rate(trial.sustained_rps)), el("td", { class: "number" }, seconds(trial.p99_s)),
      el("td", { class: "number" }, trial.duration_s.toFixed(0)), el("td", {}, settingsText(trial.settings)),
      el("td", {}, trial.cause));
  }

  function draw() {
    const value = COLUMNS[by][2];
    const list = [...trials.values()].filter((t) => !wanted || `${t.state} ${t.why} ${settingsText(t.settings)} ${t.cause}`.toLowerCase().includes(wanted));
    list.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a.number - b.number) * (down ? -1 : 1));
    heads.forEach((head, index) => head.setAttribute("aria-sort", index !== by ? "none" : down ? "descending" : "ascending"));
    list.forEach((trial, place) => {
      if (!rows.has(trial.number)) rows.set(trial.number, row(trial));
      const made = rows.get(trial.number);
      made.classList.toggle("best", trial.number === best());
      // A row that moves costs the layout of all.
      if (body.children[place] !== made) body.insertBefore(made, body.children[place] || null);
    });
    while (body.children.length > list.length) body.lastChild.remove();
  }
  const forget = (number) => { rows.get(number)?.remove(); rows.delete(number); };
  return { node, draw, forget };
}

// --- a trial --------------------------------------------------------------------------

async function trialView(signal, id, number) {
  const trial = await read(`/v1/jobs/${id}/trials/${number}`);
  if (signal.aborted) return;
  const curve = el("div", { class: "plot", role: "img", "aria-label": "Answered against offered rate" });
  const late = el("div", { class: "plot", role: "img", "aria-label": "Latency against offered rate" });
  const spent = el("div", { class: "plot", role: "img", "aria-label": "Where the seconds went" });
  const r = trial.record;
  const own = ["queue_s", "inference_s", "mean_batch_fill", "busy_workers", "peak_rss_mb", "peak_gpu_mb", "workers_ready", "steal", "foreign_cpu"];
  show(el("p", {}, el("a", { href: `#/jobs/${id}` }, "← the job")),
    el("h1", {}, `Trial ${trial.number} `, state(trial.state)),
    el("p", {}, trial.cause),
    el("div", { class: "facts" }, fact("sustained", `${rate(trial.sustained_rps)} rps`), fact("not sustained", `${rate(trial.upper_rps)} rps`),
      fact("p50, p99", `${seconds(r.p50_s)} s, ${seconds(r.p99_s)} s`), fact("took", `${trial.duration_s.toFixed(0)} s`)),
    el("p", {}, settingsText(trial.settings)),
    trial.told.length ? [el("h2", {}, "Why"), el("ul", {}, trial.told.map((t) => el("li", {}, t)))] : null,
    (r.doubts || []).length ? [el("h2", {}, "Doubts"), el("ul", {}, r.doubts.map((t) => el("li", {}, t)))] : null,
    el("div", { class: "plots" }, curve, late, spent),
    el("h2", {}, "The server's own account"),
    el("div", { class: "wide" }, el("table", {}, el("tbody", {}, own.filter((k) => r[k] != null).map((k) =>
      el("tr", {}, el("th", {}, k), el("td", {}, String(Number(r[k]).toPrecision(4)))))))),
    el("h2", {}, "Windows"), windowTable(trial.windows),
    el("h2", {}, "config.properties, against the default"), difference(trial.default_properties, trial.config_properties),
    el("h2", {}, "environment"), el("pre", { tabindex: "0" }, trial.environment || "nothing set"),
    el("h2", {}, "The server's log"), el("pre", { tabindex: "0" }, trial.log || "empty"));
  const offered = trial.windows.filter((w) => w.offered_rps != null).sort((a, b) => a.offered_rps - b.offered_rps);
  const xaxis = { title: { text: "offered, rps" }, rangemode: "tozero" };
  const rates = [...new Set(offered.map((w) => w.offered_rps))];
  const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  const line = (name, height) => ({ name, mode: "lines+markers", x: rates,
    y: rates.map((at) => middle(offered.filter((w) => w.offered_rps === at).map(height))) });
  plot(curve, [line("answered", (w) => w.goodput_rps)], { xaxis, yaxis: { title: { text: "answered, rps" }, rangemode: "tozero" } });
  plot(late, ["p50", "p90", "p99"].filter((q) => offered.some((w) => w.latency_s[q] != null)).map((q) => line(q, (w) => w.latency_s[q])),
    { xaxis, yaxis: { title: { text: "latency, s" }, rangemode: "tozero" } });
  const phases = Object.entries(r.phases_s || {});
  plot(spent, [{ type: "bar", orientation: "h", x: phases.map((p) => p[1]), y: phases.map((p) => p[0]) }], { xaxis: { title: { text: "seconds" } }, margin: { l: 120, r: 12, t: 12, b: 42 } });
}

function windowTable(windows) {
  const names = ["offered rps", "answered rps", "scheduled", "answered", "p50 s", "p99 s", "errors"];
  return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, names.map((n) => el("th", {}, n)))),
    el("tbody", {}, windows.map((w) => el("tr", {}, [
      w.offered_rps == null ? "closed loop" : rate(w.offered_rps), rate(w.goodput_rps), w.scheduled, w.succeeded,
      seconds(w.latency_s.p50), seconds(w.latency_s.p99), Object.entries(w.errors).map(([k, v]) => `${v} × ${k}`).join(", ")]
      .map((text) => el("td", {}, String(text))))))));
}

// Lines that the default does not have are marked; the place's own are left as they are.
function difference(before, now) {
  const known = new Set(before.split("\n"));
  return el("pre", { tabindex: "0" }, now.split("\n").map((line) => {
    const tuned = line && !known.has(line) && !/_address=|_port=|^(disable_|metrics_)/.test(line);
    return tuned ? el("ins", {}, `${line}\n`) : `${line}\n`;
  }));
}

// --- the way about --------------------------------------------------------------------

function tokenView(error) {
  const field = el("input", { type: "password", id: "token", required: true, autocomplete: "current-password" });
  const enter = (event) => {
    event.preventDefault();
    token = field.value.trim();
    sessionStorage.setItem("token", token);
    route();
  };
  show(el("h1", {}, "Token"), error ? problem(error) : null, el("form", { onsubmit: enter },
    el("label", { for: "token" }, "The token that servetune serve named at its start"), field,
    el("p", {}, el("input", { type: "submit", value: "Enter" }))));
  field.focus();
}

async function route() {
  leave();
  const ending = new AbortController();
  leave = () => ending.abort();
  const [, page, id, , number] = location.hash.split("/");
  while (!ending.signal.aborted) {
    try {
      if (page === "new") newView();
      else if (page === "jobs" && number) await trialView(ending.signal, id, number);
      else if (page === "jobs" && id) await jobView(ending.signal, id);
      else await jobsView(ending.signal);
      say("");
      return;
    } catch (error) {
      if (ending.signal.aborted) return;
      if (error instanceof Refused && error.status === 401) { tokenView(token ? error : null); return; }
      if (error instanceof Refused) { show(el("h1", {}, "This cannot be shown"), problem(error)); return; }
      say("the service does not answer; trying again");
      await pause(1500);
    }
  }
}

addEventListener("hashchange", () => { route(); main.focus(); });
route();
