// The entry of the page: shows the view for the part of the address after '#'.

import { ApiError, hasToken } from "./api.js";
import { showConnected, showReconnecting } from "./connection.js";
import { el, errorMessage, focusContent, showContent } from "./dom.js";
import { showComparison } from "./compare_view.js";
import { showJob } from "./job_view.js";
import { showJobs } from "./jobs_view.js";
import { showNewJob } from "./new_job_view.js";
import { sleep } from "./sleep.js";
import { showTokenForm } from "./token_view.js";
import { showTrial } from "./trial_view.js";

const RETRY_MS = 1500;
let currentView = new AbortController(); // Aborting it stops the current view's requests and timers.

// Show the view. Retry while the service cannot be reached.
async function route() {
  currentView.abort();
  currentView = new AbortController();
  const { signal } = currentView;
  while (!signal.aborted) {
    try {
      await showView(signal);
      if (!signal.aborted) showConnected();
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError) {
        showApiError(error);
        return;
      }
      showReconnecting();
      await sleep(RETRY_MS);
    }
  }
}

async function showView(signal) {
  const [, page, jobId, otherId, trialNumber] = location.hash.split("/");
  if (page === "new") await showNewJob(signal);
  else if (page === "compare") await showComparison(signal, jobId, otherId);
  else if (page === "jobs" && trialNumber) await showTrial(signal, jobId, trialNumber);
  else if (page === "jobs" && jobId) await showJob(signal, jobId);
  else await showJobs(signal);
}

function showApiError(error) {
  if (error.status === 401) showTokenForm(hasToken() ? error : null, route);
  else showContent(el("h1", {}, "Cannot show this page"), errorMessage(error));
}

addEventListener("hashchange", () => {
  route();
  focusContent();
});
route();
