// What a job is doing, from its API view.

import { formatRate } from "./format.js";

export const hasEnded = (job) => ["finished", "stopped", "failed"].includes(job.state);

export const trialsDone = (job, separator = "of") => {
  const { trials_done: done, max_trials: most } = job.progress;
  return most ? `${done} ${separator} ${most}` : `${done}`;
};

// Describe the current step of an active job, what a queued job waits for, or why a job ended.
export function describeActivity(job) {
  if (job.state === "queued") return describeWait(job);
  if (job.state !== "running" && job.state !== "stopping") {
    if (job.state === "finished" && job.reason) return `ended because ${job.reason}`;
    return job.reason || "";
  }
  const { trial, phase, rate_rps: rate, round, rounds } = job.progress;
  if (trial == null) return "starting";
  const confirmation = round == null ? "" : `, round ${round + 1} of ${rounds}`;
  return `trial ${trial}${confirmation}: ${phase}${rate ? ` at ${formatRate(rate)} rps` : ""}`;
}

// Describe what a queued job waits for.
export function describeWait(job) {
  const active = job.waits_for.filter(({ state }) => state !== "queued");
  // Only the first of those before it are listed.
  const queued = (job.queue_position ?? 1) - 1;
  const parts = [];
  if (active.length) parts.push(`waits until ${active.map(({ name }) => name).join(", ")} ends`);
  if (queued) parts.push(`${queued} ${queued === 1 ? "job is" : "jobs are"} before it`);
  if (job.queue_problem) parts.push(job.queue_problem);
  return [`queue position ${job.queue_position}`, parts.join("; ") || "starts next"].join(": ");
}

// Describe what is known so far, and how likely a better configuration is.
export function describeFindings({ progress: { so_far: soFar, improvement_probability: chance } }) {
  return [
    soFar && `so far ${soFar}`,
    chance == null ? null : `probability of a better configuration: ${Math.round(100 * chance)} %`,
  ].filter(Boolean).join("; ");
}
