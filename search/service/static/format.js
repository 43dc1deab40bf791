// Text for numbers, times and settings.

const MISSING = "–";

// Three significant digits, or the integer for a larger number; never an exponent.
export const formatNumber = (value) => {
  if (value == null) return MISSING;
  if (value === 0) return "0";
  if (Math.abs(value) >= 99.95) return value.toFixed(0);
  const text = value.toPrecision(3);
  return text.includes("e") ? String(Number(text)) : text;
};

export const formatRate = formatNumber;
export const formatSeconds = formatNumber;
export const formatMetric = formatNumber;
export const formatRatio = (ratio) => (ratio ? formatNumber(ratio) : MISSING);

export const formatCount = (count) => count.toFixed(0);

// A value with its interval, if it has one.
export const formatQuantity = (quantity, format = formatNumber) => {
  if (!quantity) return MISSING;
  const { value, low, high } = quantity;
  return low == null || low === high ? format(value)
    : `${format(value)} (${format(low)} to ${format(high)})`;
};

// Minutes for more than two of them.
export const formatDuration = (seconds) =>
  seconds == null ? MISSING : seconds > 120 ? `${Math.round(seconds / 60)} min` : `${seconds.toFixed(0)} s`;

// `timestamp` is in seconds since 1970.
export const formatTime = (timestamp) =>
  timestamp == null ? MISSING : new Date(1000 * timestamp).toLocaleString();

export const formatSettings = (settings) =>
  flatten(settings).map(([key, value]) => `${key}=${value}`).join(", ") || "TorchServe's defaults";

function flatten(settings, prefix = "") {
  return Object.entries(settings).flatMap(([key, value]) =>
    value && typeof value === "object" ? flatten(value, `${prefix}${key}.`) : [[prefix + key, value]]);
}
