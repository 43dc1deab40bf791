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
