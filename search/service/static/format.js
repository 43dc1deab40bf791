// Text for numbers, times and settings.

const MISSING = "–";

// Three significant digits, but never an exponent for a large number.
export const formatRate = (rps) =>
  rps == null ? MISSING : rps < 100 ? rps.toPrecision(3) : rps.toFixed(0);

export const formatSeconds = (seconds) => (seconds == null ? MISSING : seconds.toPrecision(3));

// At most four significant digits, but all digits of the integer part.
export const formatMetric = (value) =>
  value >= 10000 ? value.toFixed(0) : String(Number(value.toPrecision(4)));

export const formatRatio = (ratio) => (ratio ? ratio.toFixed(2) : MISSING);

// `timestamp` is in seconds since 1970.
export const formatTime = (timestamp) =>
  timestamp == null ? MISSING : new Date(1000 * timestamp).toLocaleString();

export const formatSettings = (settings) =>
  flatten(settings).map(([key, value]) => `${key}=${value}`).join(", ") || "TorchServe's defaults";

function flatten(settings, prefix = "") {
  return Object.entries(settings).flatMap(([key, value]) =>
    value && typeof value === "object" ? flatten(value, `${prefix}${key}.`) : [[prefix + key, value]]);
}
