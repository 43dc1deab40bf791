// The form that submits a job.

import { request } from "./api.js";
import { el, errorMessage, showContent } from "./dom.js";

const EXAMPLE = `name: my-model
model:
  archive: model.mar
  requests: requests.jsonl
search:
  trials: 24
  time_budget_s: 800
`;

export function showNewJob() {
  const spec = el("textarea", { id: "spec", required: true, spellcheck: "false" });
  spec.value = EXAMPLE;
  const archive = el("input", { id: "archive", type: "file", accept: ".mar" });
  const requests = el("input", { id: "requests", type: "file", accept: ".jsonl,.json" });
  const errors = el("div");
  const button = el("input", { type: "submit", value: "Submit" });

  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    errors.replaceChildren();
    const form = new FormData();
    form.append("spec", spec.value);
    if (archive.files[0]) form.append("archive", archive.files[0]);
    if (requests.files[0]) form.append("requests", requests.files[0]);
    try {
      const job = await (await request("/v1/jobs", { method: "POST", body: form })).json();
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      errors.replaceChildren(errorMessage(error));
      button.disabled = false;
    }
  };

  showContent(el("h1", {}, "New job"), el("form", { onsubmit: submit },
    el("label", { for: "spec" }, "Specification (YAML or JSON)"), spec,
    el("label", { for: "archive" }, "Model archive (replaces model.archive)"), archive,
    el("label", { for: "requests" }, "Requests (replaces model.requests)"), requests,
    errors, el("p", {}, button)));
}
