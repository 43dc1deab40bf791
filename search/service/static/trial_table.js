// The table of a job's trials, which can be sorted and filtered.

import { el, stateBadge } from "./dom.js";
import { formatRate, formatSeconds, formatSettings } from "./format.js";

// `value` is what a column sorts by.
const COLUMNS = [
  { title: "trial", value: (trial) => trial.number },
  { title: "origin", value: (trial) => trial.origin },
  { title: "state", value: (trial) => trial.state },
  { title: "rate (rps)", value: (trial) => trial.sustained_rps ?? -1, numeric: true },
  { title: "p99 (s)", value: (trial) => trial.p99_s ?? -1, numeric: true },
  { title: "duration (s)", value: (trial) => trial.duration_s, numeric: true },
  { title: "settings", value: (trial) => formatSettings(trial.settings) },
  { title: "cause", value: (trial) => trial.cause },
];

// Return {node, draw(best), discardRow(number)}. `trials` maps numbers to trials; the caller may add
// to it and draw again. A row is built once, so the caller discards the row of a trial that changed.
export function trialTable(trials, jobId) {
  let sortColumn = 0;
  let descending = false;
  let filterText = "";
  let best = null;
  const rows = new Map();
  const body = el("tbody");
  const filter = el("input", { type: "text", id: "filter", oninput: () => {
    filterText = filter.value.toLowerCase();
    drawRows();
  } });
  const headers = COLUMNS.map(({ title, numeric }, index) =>
    el("th", { "aria-sort": "none", class: numeric ? "number" : null },
      el("button", { type: "button", onclick: () => sortBy(index) }, title)));
  const node = el("div", {}, el("label", { for: "filter" }, "Filter by origin, state, settings or cause"), filter,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Trials" },
      el("table", {}, el("thead", {}, el("tr", {}, headers)), body)));

  function sortBy(index) {
    descending = index === sortColumn && !descending;
    sortColumn = index;
    drawRows();
  }

  const matches = (trial) =>
    `${trial.state} ${trial.origin} ${formatSettings(trial.settings)} ${trial.cause}`.toLowerCase().includes(filterText);

  function compare(a, b) {
    const { value } = COLUMNS[sortColumn];
    const order = value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a.number - b.number;
    return descending ? -order : order;
  }

  function drawRows() {
    headers.forEach((header, index) => header.setAttribute("aria-sort",
      index !== sortColumn ? "none" : descending ? "descending" : "ascending"));
    const shown = [...trials.values()].filter(matches).sort(compare);
    shown.forEach((trial, index) => {
      if (!rows.has(trial.number)) rows.set(trial.number, trialRow(trial, jobId));
      const row = rows.get(trial.number);
      row.classList.toggle("best", trial.number === best);
      // Moving a row makes the browser lay out the whole table again.
      if (body.children[index] !== row) body.insertBefore(row, body.children[index] || null);
    });
    while (body.children.length > shown.length) body.lastChild.remove();
  }

  function draw(bestNumber) {
    best = bestNumber;
    drawRows();
  }

  function discardRow(number) {
    rows.get(number)?.remove();
    rows.delete(number);
  }

  return { node, draw, discardRow };
}

const trialRow = (trial, jobId) => el("tr", {},
  el("td", {}, el("a", { href: `#/jobs/${jobId}/trials/${trial.number}` }, `${trial.number}`)),
  el("td", {}, trial.origin),
  el("td", {}, stateBadge(trial.state)),
  el("td", { class: "number" }, formatRate(trial.sustained_rps)),
  el("td", { class: "number" }, formatSeconds(trial.p99_s)),
  el("td", { class: "number" }, trial.duration_s.toFixed(0)),
  el("td", {}, formatSettings(trial.settings)),
  el("td", {}, trial.cause));
