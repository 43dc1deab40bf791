// The plot of a running job: the windows of its current trial. The service draws the others.

import { COLORS, drawPlot, emptyNote, zeroBasedAxis } from "./plot.js";

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
