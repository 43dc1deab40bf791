// One trial: its result, the explanation, plots, windows, configuration and log.

import { getJson } from "./api.js";
import { el, keyFigure, showContent, stateBadge } from "./dom.js";
import { formatMemory, formatNumber, formatRate, formatSeconds, formatSettings, formatShare, withUnit } from "./format.js";
import { figureNode } from "./plot.js";

const METRICS = [
  ["Queue time (s)", (record) => record.server?.queue_s],
  ["Inference time (s)", (record) => record.server?.inference_s],
  ["Mean requests per batch", (record) => record.server?.mean_batch_fill],
  ["Mean number of busy workers", (record) => record.server?.busy_workers],
  ["Workers ready", (record) => record.server?.workers_ready],
  ["Peak memory (MiB)", (record) => record.server?.peak_memory_mb, formatMemory],
  ["Peak GPU memory (MiB)", (record) => record.server?.peak_gpu_mb, formatMemory],
  ["Host CPU taken by the hypervisor", (record) => record.host?.steal, formatShare],
  ["Host CPU used by other processes", (record) => record.host?.other_cpu, formatShare],
];
const WINDOW_COLUMNS = ["offered rate (rps)", "achieved rate (rps)", "scheduled", "succeeded", "p50 (s)", "p99 (s)", "errors"];
// Settings that depend on the host or on servetune itself, not on the tuned configuration.
const UNTUNED_LINE = /_address=|_port=|^(disable_|metrics_)/;

export async function showTrial(signal, jobId, number) {
  const trial = await getJson(`/v1/jobs/${jobId}/trials/${number}`);
  if (signal.aborted) return;
  const { record } = trial;
  showContent(
    el("p", {}, el("a", { href: `#/jobs/${jobId}` }, "← Back to the job")),
    el("h1", {}, `Trial ${trial.number} `, stateBadge(trial.state)),
    el("p", {}, trial.cause),
    el("div", { class: "key-figures" },
      keyFigure("sustained rate", withUnit(formatRate(trial.sustained_rps), "rps")),
      keyFigure("lowest rate not sustained", withUnit(formatRate(trial.upper_rps), "rps")),
      keyFigure("latency (p50, p99)", `${withUnit(formatSeconds(record.latency?.p50_s), "s")}, ${withUnit(formatSeconds(record.latency?.p99_s), "s")}`),
      keyFigure("duration", `${trial.duration_s.toFixed(0)} s`)),
    el("p", {}, formatSettings(trial.settings)),
    sentences("Why this trial is slow or fast", trial.explanations),
    sentences("Warnings", record.warnings),
    sentences("Models beside the tuned one", otherModels(record)),
    el("div", { class: "plots" }, Object.entries(trial.figures).map(([name, figure]) => figureNode(figure, name))),
    el("h2", {}, "Server metrics"), metricTable(record),
    el("h2", {}, "Windows"), windowTable(trial.windows),
    el("h2", {}, "config.properties compared with the default"),
    highlightChanges(trial.default_properties, trial.config_properties),
    el("h2", {}, "Environment variables"), textBlock(trial.environment || "No environment variables are set."),
    el("h2", {}, "Server log"), textBlock(trial.log || "The log is empty."));
}

const sentences = (heading, list) => (list?.length
  ? [el("h2", {}, heading), el("ul", {}, list.map((sentence) => el("li", {}, sentence)))] : null);

function otherModels(record) {
  const served = Object.entries(record.server?.other_models || {}).map(([model, settings]) => `${model}: ${formatSettings(settings)}`);
  const loads = (record.background || []).map((load) =>
    `${load.model} at ${formatRate(load.rate_rps)} rps in the background: p50 ${formatSeconds(load.p50_s)} s, `
    + `p99 ${formatSeconds(load.p99_s)} s, ${load.failed} of ${load.scheduled} failed`);
  const mix = (record.mix || []).map((load) =>
    `${load.model} in the mix at ${formatRate(load.rate_rps)} rps: p50 ${formatSeconds(load.p50_s)} s, `
    + `p95 ${formatSeconds(load.p95_s)} s, p99 ${formatSeconds(load.p99_s)} s, ${load.failed} of ${load.sent} failed`);
  return [...served, ...mix, ...loads];
}

const textBlock = (...children) => el("pre", { tabindex: "0" }, ...children);

function metricTable(record) {
  const known = METRICS.map(([label, read, format = formatNumber]) => [label, read(record), format]).filter(([, value]) => value != null);
  if (!known.length) return el("p", { class: "muted" }, "No metrics were recorded.");
  return el("div", { class: "scroll-x" }, el("table", {}, el("tbody", {}, known.map(([label, value, format]) =>
    el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, format(value)))))));
}

function windowTable(windows) {
  const row = (window) => el("tr", {}, [
    window.offered_rps == null ? "closed loop" : formatRate(window.offered_rps), formatRate(window.goodput_rps),
    window.scheduled, window.succeeded, formatSeconds(window.latency_s.p50), formatSeconds(window.latency_s.p99),
    Object.entries(window.errors).map(([cause, count]) => `${count} × ${cause}`).join(", "),
  ].map((text) => el("td", {}, String(text))));
  return el("div", { class: "scroll-x" }, el("table", {},
    el("thead", {}, el("tr", {}, WINDOW_COLUMNS.map((title) => el("th", {}, title)))),
    el("tbody", {}, windows.map(row))));
}

// Highlight the lines that the default configuration does not have.
function highlightChanges(defaultText, text) {
  const defaultLines = new Set(defaultText.split("\n"));
  return textBlock(text.split("\n").map((line) => {
    const changed = line && !defaultLines.has(line) && !UNTUNED_LINE.test(line);
    return changed ? el("ins", {}, `${line}\n`) : `${line}\n`;
  }));
}
