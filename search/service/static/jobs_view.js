// The list of all jobs, which can be filtered and sorted, and from which two can be compared.

import { getJson } from "./api.js";
import { showConnected } from "./connection.js";
import { el, showContent, stateBadge } from "./dom.js";
import { formatRate, formatRatio, formatTime } from "./format.js";
import { describeActivity, trialsDone } from "./job_status.js";
import { sleep } from "./sleep.js";

const REFRESH_MS = 2000;
// `value` is what a column sorts by.
const COLUMNS = [
  { title: "compare" },
  { title: "job", value: (job) => job.name },
  { title: "state", value: (job) => job.state },
  { title: "trials", numeric: true, value: (job) => job.progress.trials_done },
  { title: "activity", value: describeActivity },
  { title: "best (rps)", numeric: true, value: (job) => job.best?.sustained_rps ?? -1 },
  { title: "best ÷ reference", numeric: true, value: (job) => job.ratio ?? -1 },
  { title: "created", value: (job) => job.created_s },
];
let filterText = ""; // These stay when the list is left and shown again.
let sort = { column: COLUMNS.length - 1, descending: true };

// Show the list and refresh it until `signal` aborts.
export async function showJobs(signal) {
  let jobs = [];
  const selected = new Set();
  const rows = new Map(); // By id: the row and the JSON of its job.
  const body = el("tbody");
  const empty = el("p", { class: "empty muted" }, "No jobs yet. ", el("a", { href: "#/new" }, "Start one."));
  const filter = el("input", { type: "text", id: "job-filter", value: filterText, oninput: () => {
    filterText = filter.value;
    draw();
  } });
  const compare = el("button", { type: "button", class: "action", disabled: true,
    onclick: () => { location.hash = `#/compare/${[...selected].join("/")}`; } }, "Compare two jobs");
  const headers = COLUMNS.map(({ title, numeric, value }, index) =>
    el("th", { class: numeric ? "number" : null, "aria-sort": "none" },
      value ? el("button", { type: "button", onclick: () => sortBy(index) }, title) : title));
  const list = el("div", {}, el("div", { class: "toolbar" },
    el("div", { class: "field" }, el("label", { for: "job-filter" }, "Filter by name, state or activity"), filter), compare),
  el("div", { class: "scroll-x" }, el("table", { class: "jobs" }, el("thead", {}, el("tr", {}, headers)), body)));
  showContent(el("h1", {}, "Jobs"), empty, list);

  function sortBy(column) {
    sort = { column, descending: column === sort.column && !sort.descending };
    draw();
  }

  function compareJobs(a, b) {
    const { value } = COLUMNS[sort.column];
    const order = value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0;
    return sort.descending ? -order : order;
  }

  function rowOf(job) {
    const data = JSON.stringify(job);
    const known = rows.get(job.id);
    if (known?.data === data) return known.row;
    const row = jobRow(job, selected.has(job.id), (isSelected) => {
      if (isSelected) selected.add(job.id);
      else selected.delete(job.id);
      compare.disabled = selected.size !== 2;
    });
    if (known) {
      const focusable = (node) => [...node.querySelectorAll("a, input")];
      const focused = focusable(known.row).indexOf(document.activeElement);
      known.row.replaceWith(row);
      if (focused >= 0) focusable(row)[focused].focus();
    }
    rows.set(job.id, { row, data });
    return row;
  }

  function draw() {
    headers.forEach((header, index) => header.setAttribute("aria-sort",
      index !== sort.column ? "none" : sort.descending ? "descending" : "ascending"));
    const shown = jobs.filter((job) => `${job.name} ${job.id} ${job.state} ${describeActivity(job)}`
      .toLowerCase().includes(filterText.toLowerCase())).sort(compareJobs).map(rowOf);
    for (const row of [...body.children]) if (!shown.includes(row)) row.remove();
    // Moving a row would take the focus from it.
    shown.forEach((row, index) => {
      if (body.children[index] !== row) body.insertBefore(row, body.children[index] || null);
    });
  }

  while (!signal.aborted) {
    ({ jobs } = await getJson("/v1/jobs"));
    if (signal.aborted) return;
    showConnected();
    empty.hidden = jobs.length > 0;
    list.hidden = !jobs.length;
    draw();
    await sleep(REFRESH_MS);
  }
}

function jobRow(job, isSelected, onSelect) {
  const box = el("input", { type: "checkbox", "aria-label": `Compare ${job.name}`, onchange: () => onSelect(box.checked) });
  box.checked = isSelected;
  return el("tr", {},
    el("td", {}, box),
    el("td", {}, el("a", { href: `#/jobs/${job.id}` }, job.name), el("div", { class: "muted id" }, job.id)),
    el("td", {}, stateBadge(job.state)),
    el("td", { class: "number" }, trialsDone(job)),
    el("td", {}, describeActivity(job)),
    el("td", { class: "number" }, formatRate(job.best?.sustained_rps)),
    el("td", { class: "number" }, formatRatio(job.ratio)),
    el("td", { class: "time" }, formatTime(job.created_s)));
}
