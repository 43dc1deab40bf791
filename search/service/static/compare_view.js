// Two jobs beside each other.

import { getJson } from "./api.js";
import { el, showContent, stateBadge } from "./dom.js";
import { formatDuration, formatRate, formatRatio, formatSeconds, formatSettings } from "./format.js";
import { trialsDone } from "./job_status.js";
import { figureNode } from "./plot.js";

const PLOTS = ["pareto", "latency_curve"];

export async function showComparison(signal, firstId, secondId) {
  const jobs = await Promise.all([firstId, secondId].map(readJob));
  if (signal.aborted) return;
  const settings = jobs.map(({ job }) => flatSettings(job.best?.settings || {}));
  const names = [...new Set(settings.flatMap((each) => Object.keys(each)))].sort();
  const row = (label, values) => el("tr", { class: new Set(values).size > 1 ? "different" : null },
    el("th", { scope: "row" }, label), values.map((value) => el("td", {}, value)));
  showContent(el("h1", {}, "Compare two jobs"),
    el("div", { class: "scroll-x" }, el("table", { class: "comparison" },
      el("thead", {}, el("tr", {}, el("th", {}, ""), jobs.map(({ job }) =>
        el("th", { scope: "col" }, el("a", { href: `#/jobs/${job.id}` }, job.name), " ", stateBadge(job.state), el("div", { class: "muted" }, job.id))))),
      el("tbody", {},
        row("best rate (rps)", jobs.map(({ job }) => formatRate(job.best?.sustained_rps))),
        row("reference (rps)", jobs.map(({ job }) => formatRate(job.baseline?.sustained_rps))),
        row("best ÷ reference", jobs.map(({ job }) => formatRatio(job.ratio))),
        row("confirmed", jobs.map(({ job }) => (job.confirmed ? "yes" : "no"))),
        row("p99 of the best trial in the search (s)", jobs.map(({ job, trials }) => formatSeconds(trials.find(({ number }) => number === job.best?.number)?.p99_s))),
        row("trials", jobs.map(({ job }) => trialsDone(job))),
        row("duration", jobs.map(({ job }) => formatDuration(job.started_s == null ? null : (job.ended_s ?? Date.now() / 1000) - job.started_s)))))),
    el("h2", {}, "Settings of the best configurations"),
    names.length ? el("div", { class: "scroll-x" }, el("table", { class: "comparison" },
      el("thead", {}, el("tr", {}, el("th", {}, "setting"), jobs.map(({ job }) => el("th", { scope: "col" }, job.name)))),
      el("tbody", {}, names.map((name) => row(name, settings.map((each) => each[name] ?? "unset"))))))
      : el("p", { class: "muted" }, jobs.map(({ job }) => formatSettings(job.best?.settings || {})).join(" / ")),
    PLOTS.map((name) => el("div", { class: "plots" }, jobs.map(({ job, figures }) =>
      (figures[name] ? figureNode(figures[name], name, job.name) : null)))));
}

async function readJob(id) {
  const path = `/v1/jobs/${id}`;
  const [job, { trials }] = await Promise.all([getJson(path), getJson(`${path}/trials`)]);
  // A job that has not started has no figures.
  const figures = trials.length ? (await getJson(`${path}/figures`)).figures : {};
  return { job, trials, figures };
}

const flatSettings = (settings, prefix = "") => Object.fromEntries(Object.entries(settings).flatMap(([key, value]) =>
  (value && typeof value === "object" ? Object.entries(flatSettings(value, `${prefix}${key}.`)) : [[prefix + key, String(value)]])));
