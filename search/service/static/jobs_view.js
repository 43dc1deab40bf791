// The list of all jobs.

import { getJson } from "./api.js";
import { showConnected } from "./connection.js";
import { el, showContent, stateBadge } from "./dom.js";
import { formatRate, formatRatio, formatTime } from "./format.js";
import { describeActivity, trialsDone } from "./job_status.js";
import { sleep } from "./sleep.js";

const REFRESH_MS = 2000;
const COLUMNS = [
  { title: "job" }, { title: "state" }, { title: "trials", numeric: true }, { title: "activity" },
  { title: "best (rps)", numeric: true }, { title: "best ÷ reference", numeric: true }, { title: "created" },
];

// Show the list and refresh it until `signal` aborts.
export async function showJobs(signal) {
  const body = el("tbody");
  const empty = el("p", { class: "muted" }, "No jobs yet. ", el("a", { href: "#/new" }, "Submit one."));
  const headers = COLUMNS.map(({ title, numeric }) => el("th", { class: numeric ? "number" : null }, title));
  showContent(el("h1", {}, "Jobs"), empty, el("div", { class: "scroll-x" },
    el("table", {}, el("thead", {}, el("tr", {}, headers)), body)));
  while (!signal.aborted) {
    const { jobs } = await getJson("/v1/jobs");
    if (signal.aborted) return;
    showConnected();
    empty.hidden = jobs.length > 0;
    body.replaceChildren(...jobs.map(jobRow));
    await sleep(REFRESH_MS);
  }
}

const jobRow = (job) => el("tr", {},
  el("td", {}, el("a", { href: `#/jobs/${job.id}` }, job.name), el("div", { class: "muted" }, job.id)),
  el("td", {}, stateBadge(job.state)),
  el("td", { class: "number" }, trialsDone(job)),
  el("td", {}, describeActivity(job)),
  el("td", { class: "number" }, formatRate(job.best?.sustained_rps)),
  el("td", { class: "number" }, formatRatio(job.ratio)),
  el("td", {}, formatTime(job.created_s)));
