// What a job is doing, from its API view.

import { formatRate } from "./format.js";

export const hasEnded = (job) => ["finished", "stopped", "failed"].includes(job.state);

export const trialsDone = (job, separator = "of") => {
  const { trials_done: done, max_trials: most } = job.progress;
  return most ? `${done} ${separator} ${most}` : `${done}`;
};

// Describe the current step of an active job. For any other job, return its queue position and the
// reason for its state, as far as it has them.
export function describeActivity(job) {
  if (job.state !== "running" && job.state !== "stopping") {
    const position = job.queue_position ? `queue position ${job.queue_position}` : null;
    return [position, job.reason].filter(Boolean).join(": ");
  }
  const { trial, phase, rate_rps: rate, round, rounds } = job.progress;
  if (trial == null) return "starting";
  const confirmation = round == null ? "" : `, round ${round + 1} of ${rounds}`;
  return `trial ${trial}${confirmation}: ${phase}${rate ? ` at ${formatRate(rate)} rps` : ""}`;
}

// Describe the current step, and why it is done, what is known so far, and how long the run takes.
export function describeActivityInFull(job) {
  const details = hasEnded(job) ? [] : describeProgress(job.progress);
  return [describeActivity(job), ...details].filter(Boolean).join("; ");
}

function describeProgress({ trying, so_far: soFar, left_s: left, improvement_probability: chance }) {
  return [
    trying,
    soFar && `so far ${soFar}`,
    chance == null ? null : `${Math.round(100 * chance)} % chance of a configuration over 3 % faster`,
    left == null ? null : `about ${left < 100 ? `${Math.round(left)} s` : `${Math.round(left / 60)} min`} left`,
  ].filter(Boolean);
}
