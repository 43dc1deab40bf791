// Draws the figures of the report in the colours of the page, and again when these or its width change.
const figures = JSON.parse(document.getElementById("figures").textContent);
const places = [...document.querySelectorAll("[data-figure]")];
const isDark = matchMedia("(prefers-color-scheme: dark)");
const printed = { text: "#1f2328", page: "#ffffff" };

function pageColors() {
  const style = getComputedStyle(document.documentElement);
  return { text: style.getPropertyValue("--text").trim(), page: style.getPropertyValue("--page").trim() };
}

function draw(place, colors, width) {
  const { data, layout } = figures[place.dataset.figure];
  const isNarrow = (width || place.clientWidth) < 560;
  const themed = {
    ...layout, width, autosize: !width,
    font: { ...layout.font, color: colors.text, size: isNarrow ? 11 : layout.font.size },
    margin: { ...layout.margin, l: isNarrow ? 48 : layout.margin.l, r: isNarrow ? 8 : layout.margin.r },
    hoverlabel: { bgcolor: colors.page, bordercolor: colors.text, font: { color: colors.text } },
  };
  return Plotly.react(place, structuredClone(data), themed, { responsive: !width, displaylogo: false, displayModeBar: false });
}

const drawAll = (colors, width) => places.forEach((place) => draw(place, colors, width));
drawAll(pageColors());
isDark.addEventListener("change", () => drawAll(pageColors()));
addEventListener("beforeprint", () => drawAll(printed, 640));
addEventListener("afterprint", () => drawAll(pageColors()));
