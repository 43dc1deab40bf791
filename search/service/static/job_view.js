// One job: loads its data, follows its events and keeps the parts of the view up to date.

import { getJson } from "./api.js";
import { el, showContent } from "./dom.js";
import { followEvents } from "./event_stream.js";
import { jobHeader } from "./job_header.js";
import { drawWindows } from "./job_plots.js";
import { hasEnded } from "./job_status.js";
import { planForm } from "./plan_form.js";
import { drawFigure, emptyFigure, headedPlot } from "./plot.js";
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
  let figuresVersion = null;

  const header = jobHeader(path, id, refresh);
  const live = headedPlot("Achieved against offered rate");
  const byTrial = emptyFigure();
  byTrial.hidden = true;
  const table = trialTable(trials, id);
  const trialSection = el("section", { hidden: true }, el("h2", {}, "Trials"), table.node);
  const figures = figureGrid();
  const plan = el("section", { hidden: true }, el("h2", {}, "Capacity plan"), planForm(path));
  showContent(header.node, el("div", { class: "plots" }, live.node, byTrial), figures.node,
    plan, trialSection);

  function drawLive() {
    live.node.hidden = hasEnded(job) || job.state === "queued";
    live.caption.textContent = `${currentTrial == null ? "A" : `Trial ${currentTrial}: a`}chieved against offered rate`;
    drawWindows(live.plot, windows, currentTrial);
  }

  function drawTrials() {
    table.draw(job.best?.number);
    trialSection.hidden = !trials.size;
  }

  function drawAll() {
    header.draw(job);
    drawLive();
    drawTrials();
    plan.hidden = !job.best || job.kind === "sweep";
  }

  // Fetch the plots again after each trial, but not while they are fetched.
  async function refreshFigures() {
    const version = `${trials.size} ${job.state} ${job.confirmed}`;
    if (!trials.size || version === figuresVersion) return;
    figuresVersion = version;
    const answer = await getJson(`${path}/figures`);
    if (signal.aborted || figuresVersion !== version) return;
    const { trials: rates, ...others } = answer.figures;
    byTrial.hidden = !rates;
    if (rates) drawFigure(byTrial, rates, "trials");
    figures.draw(others);
  }

  async function refresh() {
    job = await getJson(path);
    if (signal.aborted) return;
    drawAll();
    refreshFigures().catch(() => { figuresVersion = null; });
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
      if (kind === "trial") {
        job.progress = { ...job.progress, trial: data.number, phase: "start", rate_rps: null, settings: data.settings };
      }
      if (kind === "round") {
        job.progress = { ...job.progress, trial: data.number, round: data.round, settings: trials.get(data.number)?.settings };
      }
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
  refreshFigures().catch(() => { figuresVersion = null; });
  while (!signal.aborted) {
    lastEvent = await followEvents(`${path}/events`, handleEvents, signal, lastEvent);
    if (signal.aborted) return;
    await sleep(RECONNECT_MS);
    await refresh();
    while ((hasEnded(job) || job.state === "queued") && !signal.aborted) {
      await sleep(REFRESH_MS);
      await refresh();
    }
  }
}

// The plots that the service draws, except the rates by trial, which are above them.
function figureGrid() {
  const node = el("div", { class: "plots" });
  const nodes = new Map();

  function draw(figures) {
    for (const [name, figure] of Object.entries(figures)) {
      if (!nodes.has(name)) {
        nodes.set(name, emptyFigure());
        node.append(nodes.get(name));
      }
      drawFigure(nodes.get(name), figure, name);
    }
  }

  return { node, draw };
}
