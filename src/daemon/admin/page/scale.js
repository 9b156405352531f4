// From numbers to places, and where the ticks of an axis are.

/** About `count` round numbers from `low` to `high`. */
export function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(n => n * power).find(n => n >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * span; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

/** Powers of ten from `low` to `high`, with 2 and 5 between them where there are few. */
export function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const within = list => list.filter(v => v >= low * 0.999 && v <= high * 1.001);
  const of = digits => within(Array.from({ length: last - first + 1 }, (_, i) => digits.map(d => d * 10 ** (first + i))).flat());
  const tens = of([1]);
  const found = tens.length >= 3 ? tens : of([1, 2, 5]);
  return found.length >= 2 ? found : ticks(low, high, 4);
}

/** Numbers from `low` to `high` to places from `from` to `to`. */
export function scale(low, high, from, to, logarithmic = false) {
  const of = logarithmic ? Math.log : v => v;
  const a = of(low), b = of(high), span = b - a || 1;
  return v => from + (of(v) - a) / span * (to - from);
}
