// Changes single values of a specification's text; comments and all other values stay.

import { parseDocument } from "./vendor/yaml/index.js";

// Return the value at a path such as "goal.limits.p99_s"; undefined without one, or in a text that
// cannot be parsed.
export function valueAt(text, path) {
  const document = parseDocument(text);
  if (document.errors.length) return undefined;
  try {
    return document.getIn(path.split("."));
  } catch {
    return undefined; // A value is where the path needs a mapping.
  }
}

// Return the text with another value at a path, or without one for null. Throw an Error if the text
// is no YAML.
export function withValue(text, path, value) {
  const document = parseDocument(text);
  if (document.errors.length) throw new Error(document.errors[0].message);
  const keys = path.split(".");
  if (value !== null) {
    document.setIn(keys, value);
  } else if (document.hasIn(keys)) {
    document.deleteIn(keys);
    // An empty section is no mapping for the service.
    for (keys.pop(); keys.length && !document.getIn(keys)?.items?.length; keys.pop()) document.deleteIn(keys);
  }
  return document.toString({ lineWidth: 0 });
}
