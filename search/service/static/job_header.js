// The upper part of the job view: activity, key figures, buttons and links.

import { download, request } from "./api.js";
import { el, errorMessage, keyFigure, replaceContent, stateBadge, withCode } from "./dom.js";
import { formatDuration, formatQuantity, formatRate, formatSettings, withUnit } from "./format.js";
import { describeActivity, describeFindings, hasEnded, trialsDone } from "./job_status.js";

// Return {node, draw(job), drawActivity(job)}. `refresh` is called after a button's action.
export function jobHeader(path, id, refresh) {
  const content = el("div");
  const errors = el("div");
  const activity = el("p", { role: "status", id: "now" });
  const node = el("div", {}, content, errors);

  const button = (label, action, { danger = false, disabled = false }) => el("button", {
    class: `action ${danger ? "danger" : ""}`, disabled, type: "button",
    onclick: async () => {
      errors.replaceChildren();
      try {
        await action();
        await refresh();
      } catch (error) {
        errors.replaceChildren(errorMessage(error));
      }
    },
  }, label);

  const trying = el("p", { class: "muted", id: "trying" });

  function drawActivity(job) {
    activity.textContent = describeActivity(job);
    const { trying: reason, settings } = job.progress;
    trying.hidden = hasEnded(job) || !reason;
    trying.textContent = trying.hidden ? ""
      : [reason, settings && formatSettings(settings), describeFindings(job)].filter(Boolean).join("; ");
  }

  function draw(job) {
    const { best, baseline } = job;
    const ended = hasEnded(job);
    const focusable = () => [...content.querySelectorAll("button, a")];
    const focused = focusable().find((each) => each === document.activeElement)?.textContent;
    drawActivity(job);
    replaceContent(content,
      el("h1", {}, job.name, " ", stateBadge(job.state)),
      activity, trying,
      job.answer.length ? el("section", { class: "answer" }, job.answer.map((text, number) => el("p", { class: number ? "" : "verdict" }, withCode(text)))) : null,
      job.ratio_warnings.length ? el("ul", { class: "muted" }, job.ratio_warnings.map((text) => el("li", {}, `Best ÷ reference: ${text}.`))) : null,
      el("div", { class: "key-figures" },
        keyFigure("trials", trialsDone(job, "of at most")),
        keyFigure(job.confirmed ? "best (confirmed)" : "best", rateText(best), " ",
          best ? el("a", { href: `#/jobs/${id}/trials/${best.number}`, class: "muted" }, `trial ${best.number}`) : ""),
        keyFigure("reference", rateText(baseline)),
        keyFigure("best ÷ reference", ratioText(job)),
        hasEnded(job) || job.state === "queued" ? null
          : keyFigure("time left, about", formatDuration(job.progress.left_s))),
      el("div", { class: "buttons" },
        button("Stop", () => request(path, { method: "DELETE" }),
          { danger: true, disabled: ended || job.state === "stopping" }),
        button("Resume", () => request(`${path}/resume`, { method: "POST" }), { disabled: !ended }),
        button("Download report", () => download(`${path}/report`, `${id}-report.html`),
          { disabled: !job.progress.trials_done }),
        button("Download files for production", () => download(`${path}/best.tar.gz`, `${id}-best.tar.gz`),
          { disabled: !ended || !best })),
      el("p", {}, Object.entries(job.links).map(([name, url]) => [el("a", { href: url, rel: "noreferrer" }, name), " "])));
    // Redrawing replaces buttons and links; keyboard focus stays on the one with the same text.
    if (focused) focusable().find((each) => each.textContent === focused)?.focus();
  }

  return { node, draw, drawActivity };
}

const ratioText = ({ ratio, ratio_low: low, ratio_high: high }) => formatQuantity(ratio && { value: ratio, low, high });

const rateText = (trial) => withUnit(formatRate(trial?.sustained_rps), "rps");
