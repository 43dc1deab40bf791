// The plots of the job view: windows of the current trial, and rates of all trials.

import { formatSettings } from "./format.js";
import { axis, COLORS, drawPlot, emptyNote, zeroBasedAxis } from "./plot.js";

// Plot the achieved rate against the offered rate of one trial's windows. A closed loop offers no
// rate; what it achieved is a line.
export function drawWindows(node, windows, trial) {
  const openLoop = windows.filter((window) => window.offered_rps != null);
  const closedRps = windows.filter((window) => window.offered_rps == null).at(-1)?.answered_rps;
  const highest = Math.max(closedRps ?? 0, ...openLoop.map((window) => window.offered_rps)) || 1;
  const points = (name, list, color) => ({
    name, type: "scatter", mode: "markers", marker: { color, size: 9 },
    x: list.map((window) => window.offered_rps), y: list.map((window) => window.answered_rps),
  });
  drawPlot(node, [
    { name: "achieved = offered", x: [0, highest], y: [0, highest], mode: "lines",
      line: { color: COLORS.neutral, dash: "dot", width: 1 }, hoverinfo: "skip" },
    ...(closedRps ? [{ name: "closed loop", x: [0, highest], y: [closedRps, closedRps], mode: "lines",
      line: { color: COLORS.accent, dash: "dash", width: 1 }, hovertemplate: "%{y:.3g} requests/s<extra></extra>" }] : []),
    points("no failures", openLoop.filter((window) => !window.failed), COLORS.good),
    points("with failures", openLoop.filter((window) => window.failed), COLORS.bad),
  ], {
    annotations: windows.length ? [] : [emptyNote(trial == null ? "no trial yet" : `trial ${trial}: no window yet`)],
    xaxis: zeroBasedAxis("offered rate, requests/s"),
    yaxis: zeroBasedAxis("achieved rate, requests/s"),
  });
}

// Plot the rate of each trial, the best rate so far and the baseline, if known.
export function drawTrialRates(node, trials, baselineRps) {
  const sorted = [...trials].sort((a, b) => a.number - b.number);
  const points = (name, state, rate, color, symbol) => {
    const list = sorted.filter((trial) => trial.state === state);
    return {
      name, type: "scatter", mode: "markers", marker: { color, symbol, size: 8 },
      x: list.map((trial) => trial.number), y: list.map(rate),
      text: list.map((trial) => formatSettings(trial.settings)),
    };
  };
  let best = 0;
  const bestSoFar = sorted.map((trial) => (best = Math.max(best, trial.sustained_rps || 0)));
  const shapes = baselineRps ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: baselineRps, y1: baselineRps,
    line: { color: COLORS.accent, dash: "dash", width: 1 } }] : [];
  drawPlot(node, [
    points("sustained", "COMPLETE", (trial) => trial.sustained_rps, COLORS.good, "circle"),
    points("pruned (estimated capacity)", "PRUNED", (trial) => trial.capacity_rps, COLORS.neutral, "x"),
    points("failed", "FAILED", () => 0, COLORS.bad, "triangle-down"),
    { name: "best so far", x: sorted.map((trial) => trial.number), y: bestSoFar, mode: "lines",
      line: { color: COLORS.good, shape: "hv", width: 1 }, hoverinfo: "skip" },
  ], {
    shapes, yaxis: zeroBasedAxis("rate, requests/s"),
    annotations: sorted.length ? [] : [emptyNote("no trial has finished yet")],
    xaxis: axis("trial", { dtick: sorted.length > 12 ? null : 1 }),
  });
}
