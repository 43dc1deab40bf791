// The fields of the form for a new job: the path of each in the specification, and how it is shown.

export const FIELDS = [
  { path: "name", label: "Name" },
  { path: "goal.objective", label: "Objective", group: "Objective and limits",
    choices: [["rate", "highest rate"], ["latency", "lowest latency at a rate"], ["footprint", "least memory and workers at a rate"]] },
  { path: "goal.for_rps", label: "Rate to serve (rps)", number: true, group: "Objective and limits",
    hint: "For the objectives “latency” and “footprint”." },
  { path: "goal.headroom", label: "Headroom (share)", number: true, group: "Objective and limits" },
  { path: "goal.limits.p99_s", label: "p99 latency, at most (s)", number: true, group: "Objective and limits" },
  { path: "goal.limits.p95_s", label: "p95 latency, at most (s)", number: true, group: "Objective and limits" },
  { path: "goal.limits.memory_mb", label: "Memory, at most (MiB)", number: true, group: "Objective and limits" },
  { path: "goal.limits.workers", label: "Workers, at most", number: true, group: "Objective and limits" },
  // For a service whose specifications have no objectives.
  { path: "goal.p99_s", label: "p99 latency, at most (s)", number: true, group: "Objective and limits" },
  { path: "search.time_budget_s", label: "Time (s)", number: true, group: "Time",
    hint: "Of the whole job, with the confirmation." },
  { path: "search.trials", label: "Trials, at most", number: true, group: "Time" },
];

// Return the fields that the service's specifications have, by the schemas of its OpenAPI document.
export const knownFields = (schemas) => FIELDS.filter(({ path }) => hasField(schemas, "StudySpec", path.split(".")));

function hasField(schemas, model, [key, ...rest]) {
  const property = schemas[model]?.properties?.[key];
  if (!property) return false;
  if (!rest.length) return true;
  const reference = [property, ...(property.anyOf || []), ...(property.allOf || [])].find((option) => option.$ref);
  return reference ? hasField(schemas, reference.$ref.split("/").pop(), rest) : false;
}
