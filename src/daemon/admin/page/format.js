// Numbers and times as people read them.

/** A number with about four digits that count. */
export function number(x) {
  if (x == null || !Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  if (size >= 1e6 || (size !== 0 && size < 1e-3)) return Number(x.toPrecision(3)).toExponential();
  return x.toLocaleString("en", { maximumSignificantDigits: size >= 1e4 ? 6 : 4 });
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
