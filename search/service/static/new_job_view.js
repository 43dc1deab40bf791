// The form that submits a job, with its specification beside it. The specification is what is
// submitted: the form changes single values of it, and shows its values.

import { getJson, request } from "./api.js";
import { el, errorMessage, showContent } from "./dom.js";
import { knownFields } from "./job_fields.js";
import { sleep } from "./sleep.js";
import { valueAt, withValue } from "./yaml_document.js";

const EXAMPLE = `name: my-model
model:
  archive: model.mar
  requests: requests.jsonl
search:
  trials: 24
  time_budget_s: 800
`;
const CHECK_DELAY_MS = 400;
const FILES = [
  { name: "archive", label: "Model archive", accept: ".mar,.tgz,.gz", hint: "made by torch-model-archiver" },
  { name: "requests", label: "Requests", accept: ".jsonl,.json", hint: "one JSON object per line" },
];

export async function showNewJob(signal) {
  // The document needs no token, but the form does: it asks before anything is filled in.
  const [{ components }] = await Promise.all([getJson("/v1/openapi.json"), getJson("/v1/jobs")]);
  if (signal.aborted) return;
  let checks = 0;
  const spec = el("textarea", { id: "spec", required: true, spellcheck: "false", oninput: () => changed() });
  spec.value = EXAMPLE;
  const inputs = new Map(); // By path: the element of each field, also of files.
  const notes = new Map(); // By path: the element of its errors.
  const errors = el("div", { id: "form-errors" });
  const button = el("input", { type: "submit", value: "Start the job", class: "primary" });
  const demo = el("button", { type: "button", class: "action", onclick: tryBundledModel }, "Try it with the bundled model");

  function field(path, label, input, hint, wrap = (node) => node) {
    const note = el("p", { class: "error", id: `error-${path}`, hidden: true });
    inputs.set(path, input);
    notes.set(path, note);
    input.id = `field-${path}`;
    input.setAttribute("aria-describedby", note.id);
    return el("div", { class: "field" }, el("label", { for: input.id }, label), wrap(input),
      hint ? el("p", { class: "hint" }, hint) : null, note);
  }

  const fileInputs = FILES.map(({ name, accept }) => el("input", { type: "file", accept, onchange: (event) => {
    const [file] = event.target.files;
    if (file) change(`model.${name}`, file.name);
  } }));
  const fileFields = FILES.map(({ name, label, hint }, index) => field(`model.${name}`, label, fileInputs[index], hint, dropZone));
  const fields = knownFields(components.schemas);
  const valueFields = fields.map((description) => {
    const { path, label, number, choices, hint } = description;
    const update = (event) => change(path, parseValue(event.target.value, number));
    const input = choices
      ? el("select", { onchange: update }, choices.map(([value, text]) => el("option", { value }, text)))
      : el("input", { type: "text", inputmode: number ? "decimal" : null, autocomplete: "off", oninput: update });
    return { group: description.group || "Model", node: field(path, label, input, hint) };
  });

  // Change one value of the specification.
  function change(path, value) {
    try {
      spec.value = withValue(spec.value, path, value);
    } catch (error) {
      showProblems([{ path: "", message: `correct the specification first: ${error.message}` }]);
      return;
    }
    changed(path);
  }

  // Show the specification's values in the form, except in the field that is being edited.
  function changed(edited = null) {
    for (const { path, choices } of fields) {
      const input = inputs.get(path);
      const value = valueAt(spec.value, path);
      const absent = choices ? choices[0][0] : "";
      if (path !== edited) input.value = value == null || typeof value === "object" ? absent : String(value);
    }
    checkSoon();
  }

  async function checkSoon() {
    const check = ++checks;
    await sleep(CHECK_DELAY_MS);
    if (check !== checks || signal.aborted) return;
    try {
      await request("/v1/check", { method: "POST", body: spec.value });
      if (check === checks) showProblems([]);
    } catch (error) {
      // The submission shows any other error.
      if (check === checks && error.status === 422) showProblems(error.fields);
    }
  }

  // Show each problem at its field; those without a field at the specification.
  function showProblems(problems) {
    const byPath = new Map([...notes.keys()].map((path) => [path, []]));
    const others = [];
    for (const problem of problems) (byPath.get(problem.path) || others).push(problem);
    for (const [path, list] of byPath) {
      const note = notes.get(path);
      note.textContent = list.map(({ message }) => message).join("; ");
      note.hidden = !list.length;
      inputs.get(path).setAttribute("aria-invalid", String(list.length > 0));
    }
    errors.replaceChildren(...(others.length ? [errorMessage({
      message: "In the specification:",
      problems: others.map(({ path, message }) => (path ? `${path}: ${message}` : message)),
    })] : []));
  }

  async function tryBundledModel() {
    demo.disabled = true;
    demo.textContent = "Building the bundled model…";
    try {
      spec.value = (await (await request("/v1/demo", { method: "POST" })).json()).specification;
      fileInputs.forEach((input) => { input.value = ""; });
      changed();
      button.focus();
    } catch (error) {
      errors.replaceChildren(errorMessage(error));
    }
    demo.disabled = false;
    demo.textContent = "Try it with the bundled model";
  }

  async function submit(event) {
    event.preventDefault();
    checks += 1; // A check that is running would hide the errors of the submission.
    button.disabled = true;
    const form = new FormData();
    form.append("spec", spec.value);
    FILES.forEach(({ name }, index) => {
      const [file] = fileInputs[index].files;
      if (file) form.append(name, file);
    });
    try {
      const job = await (await request("/v1/jobs", { method: "POST", body: form })).json();
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      button.disabled = false;
      if (!error.fields?.length) {
        errors.replaceChildren(errorMessage(error));
        return;
      }
      showProblems(error.fields);
      const first = [...inputs.values()].find((input) => input.getAttribute("aria-invalid") === "true");
      (first || spec).focus();
    }
  }

  const inGroup = (name) => valueFields.filter(({ group }) => group === name).map(({ node }) => node);
  showContent(el("div", { class: "title-row" }, el("h1", {}, "New job"), demo),
    el("form", { onsubmit: submit, class: "two-columns", novalidate: true },
      el("div", {},
        el("fieldset", {}, el("legend", {}, "Model"), inGroup("Model"), fileFields),
        el("fieldset", {}, el("legend", {}, "Objective and limits"), el("div", { class: "field-grid" }, inGroup("Objective and limits"))),
        el("fieldset", {}, el("legend", {}, "Time"), el("div", { class: "field-grid" }, inGroup("Time")))),
      el("div", { class: "spec-column" },
        el("label", { for: "spec" }, "Specification"),
        el("p", { class: "hint" }, "This is what is submitted (YAML or JSON). A field changes its value here; what you write here appears in the fields."),
        spec, errors, el("p", {}, button))));
  changed();
}

function parseValue(text, isNumber) {
  const trimmed = text.trim();
  if (!trimmed) return null;
  const number = Number(trimmed);
  // A text that is no number goes to the service, which names what is wrong with it.
  return isNumber && Number.isFinite(number) ? number : trimmed;
}

// Wrap a file input so that a file can be dropped on it.
function dropZone(input) {
  return el("div", { class: "drop", ondragover: (event) => event.preventDefault(), ondrop: (event) => {
    event.preventDefault();
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change"));
  } }, input, el("span", { class: "muted" }, "or drop it here"));
}
