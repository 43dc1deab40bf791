// Plots drawn with Plotly, which index.html loads as a global.

import { el } from "./dom.js";

export const COLORS = { good: "#1a7f37", bad: "#cf222e", neutral: "#8b949e", accent: "#0969da" };

const LAYOUT = {
  margin: { l: 52, r: 12, t: 30, b: 84 }, font: { family: "system-ui, sans-serif", size: 12 },
  legend: { orientation: "h", y: -0.28 }, hovermode: "closest",
};
const drawnData = new WeakMap(); // By node, the JSON of the data that its plot shows.

export const plotNode = (label) => el("div", { class: "plot", role: "img", "aria-label": label });

// An axis that starts at zero.
export const zeroBasedAxis = (title) => ({ title: { text: title }, rangemode: "tozero" });

// Draw or update a plot. A call with unchanged data does nothing.
export function drawPlot(node, traces, layout) {
  const data = JSON.stringify([traces, layout]);
  if (drawnData.get(node) === data) return;
  const isNew = !drawnData.has(node);
  drawnData.set(node, data);
  Plotly.react(node, traces, { ...LAYOUT, showlegend: traces.length > 1, ...layout }, { displaylogo: false });
  // The column changes its width without the window when a neighbouring plot is hidden or shown.
  if (isNew) new ResizeObserver(() => node.clientWidth && Plotly.Plots.resize(node)).observe(node);
}
