// The plots of the job view: windows of the current trial, and rates of all trials.

import { formatSettings } from "./format.js";
import { COLORS, drawPlot, zeroBasedAxis } from "./plot.js";

// Plot the achieved rate against the offered rate of one trial's windows.
export function drawWindows(node, windows, trial) {
  const openLoop = windows.filter((window) => window.offered_rps != null);
  const highest = Math.max(1, ...openLoop.map((window) => window.offered_rps));
  const points = (name, list, color) => ({
    name, type: "scatter", mode: "markers", marker: { color, size: 9 },
    x: list.map((window) => window.offered_rps), y: list.map((window) => window.answered_rps),
  });
  drawPlot(node, [
    { name: "achieved = offered", x: [0, highest], y: [0, highest], mode: "lines",
      line: { color: COLORS.neutral, dash: "dot", width: 1 }, hoverinfo: "skip" },
    points("no failures", openLoop.filter((window) => !window.failed), COLORS.good),
    points("with failures", openLoop.filter((window) => window.failed), COLORS.bad),
  ], {
    title: { text: trial == null ? "no trial yet" : `trial ${trial}`, font: { size: 13 } },
    xaxis: zeroBasedAxis("offered rate (rps)"), yaxis: zeroBasedAxis("achieved rate (rps)"),
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
    shapes, yaxis: zeroBasedAxis("rate (rps)"),
    xaxis: { title: { text: "trial" }, dtick: sorted.length > 12 ? null : 1 },
  });
}
