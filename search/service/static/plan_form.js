// The form that plans replicas of a job's configuration for a load.

import { getJson } from "./api.js";
import { el, errorMessage } from "./dom.js";
import { formatCount, formatMemory, formatNumber, formatQuantity, formatSettings } from "./format.js";

const FIELDS = [
  { name: "rps", label: "Load of all replicas (rps)", value: "1000" },
  { name: "p99_s", label: "p99 latency, at most (s)", value: "" },
  { name: "headroom", label: "Headroom (share)", value: "0.3" },
  { name: "price_per_hour", label: "Price of a replica per hour", value: "" },
];

export function planForm(path) {
  const result = el("div", { role: "status" });
  const controls = FIELDS.map(({ name, label, value }) => {
    const input = el("input", { type: "text", inputmode: "decimal", id: `plan-${name}`, name, value, autocomplete: "off",
      "aria-describedby": `plan-error-${name}` });
    const note = el("p", { class: "error", id: `plan-error-${name}`, hidden: true });
    return { name, input, note, node: el("div", { class: "field" }, el("label", { for: input.id }, label), input, note) };
  });

  async function plan(event) {
    event.preventDefault();
    const query = new URLSearchParams(controls.map(({ name, input }) => [name, input.value.trim()]));
    let problems = [];
    try {
      result.replaceChildren(planTable((await getJson(`${path}/plan?${query}`)).plan));
    } catch (error) {
      problems = error.fields || [];
      result.replaceChildren(...(problems.length ? [] : [errorMessage(error)]));
    }
    for (const { name, input, note } of controls) {
      const own = problems.filter((problem) => problem.path === name);
      note.textContent = own.map(({ message }) => message).join("; ");
      note.hidden = !own.length;
      input.setAttribute("aria-invalid", String(own.length > 0));
    }
    controls.find(({ note }) => !note.hidden)?.input.focus();
  }

  return el("form", { onsubmit: plan, class: "plan", novalidate: true },
    el("div", { class: "field-grid" }, controls.map(({ node }) => node)),
    el("p", {}, el("input", { type: "submit", value: "Plan", class: "primary" })), result);
}

function planTable(plan) {
  const load = (each) => (each ? `${formatNumber(each.rps)} rps each, ${formatNumber(100 * each.share)} % of the rate; p50 ${formatQuantity(each.p50_s)} s, p99 ${formatQuantity(each.p99_s)} s${each.is_sustained ? "" : "; not sustained"}` : null);
  const rows = [
    ["Replicas", formatQuantity(plan.replicas, formatCount)],
    ["A replica sustains (rps)", formatQuantity(plan.replica_rps)],
    ["Load of a replica", load(plan.load)],
    ["While one is down", load(plan.one_down)],
    ["Memory of a replica (MiB)", plan.memory_mb && formatQuantity(plan.memory_mb, formatMemory)],
    ["Memory of all (MiB)", plan.total_memory_mb && formatQuantity(plan.total_memory_mb, formatMemory)],
    ["Cost per million requests", plan.cost_per_million && formatQuantity(plan.cost_per_million)],
    ["Autoscaling: rps per replica", formatQuantity(plan.autoscaling.target_rps)],
    ["Autoscaling: requests in flight per replica", formatQuantity(plan.autoscaling.concurrency)],
    ["SageMaker invocations per instance per minute", formatQuantity(plan.autoscaling.sagemaker_invocations_per_minute)],
  ].filter(([, value]) => value);
  return el("div", {},
    el("p", {}, `Trial ${plan.trial ?? "–"}: ${formatSettings(plan.settings)}`),
    el("div", { class: "scroll-x" }, el("table", {}, el("tbody", {}, rows.map(([label, value]) =>
      el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, value)))))),
    el("details", {}, el("summary", {}, "HorizontalPodAutoscaler"),
      el("pre", { tabindex: "0" }, JSON.stringify(plan.autoscaling.horizontal_pod_autoscaler, null, 2))),
    plan.has_intervals ? null : el("p", { class: "muted" }, "There are no intervals: the rate is not confirmed."),
    el("ul", {}, plan.notes.map((note) => el("li", {}, note))));
}
