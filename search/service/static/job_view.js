// One job: loads its data, follows its events and keeps the parts of the view up to date.

import { getJson } from "./api.js";
import { el, showContent } from "./dom.js";
import { followEvents } from "./event_stream.js";
import { jobHeader } from "./job_header.js";
import { drawTrialRates, drawWindows } from "./job_plots.js";
import { hasEnded } from "./job_status.js";
import { plotNode } from "./plot.js";
import { sleep } from "./sleep.js";
import { trialTable } from "./trial_table.js";

const REFRESH_MS = 2000;
const RECONNECT_MS = 1000;

// Show the job and keep it up to date until `signal` aborts.
export async function showJob(signal, id) {
  const path = `/v1/jobs/${id}`;
  let job = await getJson(path);
  let lastEvent = String(job.events_from);
  const trials = new Map((await getJson(`${path}/trials`)).trials.map((trial) => [trial.number, trial]));
  if (signal.aborted) return;
  let currentTrial = null;
  let windows = []; // Of the current trial.

  const header = jobHeader(path, id, refresh);
  const windowPlot = plotNode("Achieved rate vs. offered rate");
  const trialPlot = plotNode("Rate by trial");
  const table = trialTable(trials, id);
  showContent(header.node, el("div", { class: "plots" }, windowPlot, trialPlot), el("h2", {}, "Trials"), table.node);

  function drawLive() {
    windowPlot.hidden = hasEnded(job);
    drawWindows(windowPlot, windows, currentTrial);
  }

  function drawTrials() {
    drawTrialRates(trialPlot, [...trials.values()], job.baseline?.sustained_rps);
    table.draw(job.best?.number);
  }

  function drawAll() {
    header.draw(job);
    drawLive();
    drawTrials();
  }

  async function refresh() {
    job = await getJson(path);
    if (!signal.aborted) drawAll();
  }

  function handleEvents(events) {
    let windowsChanged = false;
    let jobChanged = false;
    for (const { kind, data } of events) {
      if (kind === "trial" || kind === "round") {
        currentTrial = data.number;
        windows = [];
        windowsChanged = true;
      }
      if (kind === "round") job.progress = { ...job.progress, round: data.round };
      if (kind === "progress") job.progress = { ...job.progress, ...data };
      if (kind === "phase") {
        job.progress = { ...job.progress, trial: data.number, phase: data.name, rate_rps: data.rate_rps };
      }
      if (kind === "window" && (data.number ?? currentTrial) === currentTrial) {
        windows.push(data);
        windowsChanged = true;
      }
      if (kind === "result") {
        trials.set(data.number, data);
        table.discardRow(data.number);
      }
      jobChanged ||= ["state", "result", "confirmed"].includes(kind);
    }
    header.drawActivity(job);
    if (windowsChanged) drawLive();
    if (jobChanged) refresh().catch(drawTrials);
  }

  drawAll();
  while (!signal.aborted) {
    lastEvent = await followEvents(`${path}/events`, handleEvents, signal, lastEvent);
    if (signal.aborted) return;
    await sleep(RECONNECT_MS);
    await refresh();
    while (hasEnded(job) && !signal.aborted) {
      await sleep(REFRESH_MS);
      await refresh();
    }
  }
}
