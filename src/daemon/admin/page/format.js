// Numbers and times as people read them.

/** A number with about four digits that count, or as many as are asked for. */
export function number(x, digits = 4) {
  if (x == null || !Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  if (size >= 1e6 || (size !== 0 && size < 1e-3)) return Number(x.toPrecision(digits - 1)).toExponential();
  return x.toLocaleString("en", { maximumSignificantDigits: size >= 1e4 ? digits + 2 : digits });
}

/** Different numbers with as many digits as tell them apart. */
export function apart(numbers) {
  const told = [4, 5, 6, 8, 10].map(digits => numbers.map(x => number(x, digits)));
  return told.find(texts => new Set(texts).size === numbers.length) ?? told.at(-1);
}

/** A whole number with its thousands apart. */
export const integer = n => n == null ? "–" : Math.round(n).toLocaleString("en");

/** A share as per cent. */
export const percent = x => x == null ? "–" : `${(100 * x).toFixed(1)} %`;

/** Seconds in the two largest units that matter. */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [name, size] = units[first], whole = Math.floor(seconds / size);
  const next = units[first + 1];
  if (!next || whole >= 10) return `${Math.round(seconds / size)} ${name}`;
  const rest = Math.floor((seconds - whole * size) / next[1]);
  return rest ? `${whole} ${name} ${rest} ${next[0]}` : `${whole} ${name}`;
}

/** A moment on the viewer's clock: only the time if that is today, with the day otherwise. */
export function moment(date) {
  const time = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const today = date.toDateString() === new Date().toDateString();
  return today ? time : `${date.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short" })}, ${time}`;
}

/** `waiting_for_data` as words. */
export const words = name => String(name).replaceAll("_", " ");
