// Plots drawn with Plotly, which index.html loads as a global.

import { el } from "./dom.js";

export const COLORS = { good: "#2da44e", bad: "#e5534b", neutral: "#8b949e", accent: "#3b8eea", warm: "#bf8700" };

const LAYOUT = {
  margin: { l: 52, r: 12, t: 24, b: 48 }, hovermode: "closest",
  legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  colorway: [COLORS.accent, COLORS.warm, COLORS.good, COLORS.bad, COLORS.neutral],
};
const GRID = "rgba(128,128,128,0.25)";
const FONT_PX = 12;
const drawn = new Map(); // By node: the traces, the layout and their JSON.

const plotNode = (label) => el("div", { class: "plot", role: "img", "aria-label": label });

// A plot that the page draws itself, under its heading.
export function headedPlot(heading) {
  const plot = plotNode(heading);
  const caption = el("figcaption", {}, heading);
  return { plot, caption, node: el("figure", {}, caption, plot) };
}

const axis = (title, options = {}) => ({ title: { text: title }, gridcolor: GRID, zerolinecolor: GRID, ...options });

// An axis that starts at zero.
export const zeroBasedAxis = (title) => axis(title, { rangemode: "tozero" });

// The text in the middle of a plot that has no data yet.
export const emptyNote = (text) =>
  ({ text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 });

// Draw or update a plot. A call with unchanged data does nothing.
export function drawPlot(node, traces, layout) {
  const data = JSON.stringify([traces, layout]);
  const before = drawn.get(node);
  if (before?.data === data) return;
  drawn.set(node, { data, traces, layout });
  react(node, traces, layout);
  // The column changes its width without the window when a neighbouring plot is hidden or shown.
  if (!before) new ResizeObserver(() => node.clientWidth && Plotly.Plots.resize(node)).observe(node);
}

// A place for a figure that the service has drawn; see `drawFigure`.
export const emptyFigure = () => el("figure", {}, el("figcaption"), plotNode(""));

// Create a plot of a figure that the service has drawn, with its heading, after that of a group if any.
export function figureNode(figure, fallback, group = null) {
  const node = emptyFigure();
  drawFigure(node, figure, fallback);
  if (group) node.firstChild.textContent = `${group}: ${node.firstChild.textContent}`;
  return node;
}

export function drawFigure(node, figure, fallback) {
  const [heading, plot] = node.children;
  heading.textContent = figure.layout.meta?.heading || fallback;
  plot.setAttribute("aria-label", heading.textContent);
  drawPlot(plot, figure.data, { ...figure.layout, height: undefined, showlegend: figure.layout.showlegend });
}

function react(node, traces, layout) {
  const color = getComputedStyle(document.body).color;
  Plotly.react(node, traces, {
    ...LAYOUT, showlegend: traces.length > 1, ...layout,
    font: { family: "system-ui, sans-serif", ...layout.font, size: FONT_PX, color },
  }, { displaylogo: false, responsive: false });
}

// Plots have the text's colour of the scheme that they were drawn in.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const [node, { traces, layout }] of drawn) {
    if (node.isConnected) react(node, traces, layout);
    else drawn.delete(node);
  }
});
