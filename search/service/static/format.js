// Text for numbers, times and settings.

const MISSING = "–";

// At most three significant digits, or the integer for a larger number, as in the report.
export const formatNumber = (value) => {
  if (value == null) return MISSING;
  return Math.abs(value) >= 99.95 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
};

export const formatRate = formatNumber;
export const formatSeconds = formatNumber;
export const formatMemory = (megabytes) => (megabytes == null ? MISSING : Math.round(megabytes).toLocaleString("en"));
export const formatShare = (share) => (share == null ? MISSING : `${formatNumber(100 * share)} %`);
export const formatRatio = (ratio) => (ratio ? formatNumber(ratio) : MISSING);

export const formatCount = (count) => count.toFixed(0);

// A value with its unit; without the unit if the value is missing.
export const withUnit = (text, unit) => (text === MISSING ? text : `${text} ${unit}`);

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
  timestamp == null ? MISSING : new Date(1000 * timestamp).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

export const formatSettings = (settings) =>
  flatten(settings).map(([key, value]) => `${key}=${value}`).join(", ") || "TorchServe's defaults";

function flatten(settings, prefix = "") {
  return Object.entries(settings).flatMap(([key, value]) =>
    value && typeof value === "object" ? flatten(value, `${prefix}${key}.`) : [[prefix + key, value]]);
}
