// Which lines differ.

/** Cells of the table of the longest common subsequence at most; beyond, everything between the equal ends counts as replaced. */
const MOST_CELLS = 4e6;

/** Lines of two texts as [sign, line] with the signs " ", "-", "+". */
export function lines(before, after) {
  const a = before.split("\n"), b = after.split("\n");
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const middle = compared(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  return [...a.slice(0, head).map(line => [" ", line]), ...middle, ...a.slice(a.length - tail).map(line => [" ", line])];
}

function compared(a, b) {
  if (a.length * b.length > MOST_CELLS) return [...a.map(line => ["-", line]), ...b.map(line => ["+", line])];
  const longest = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i][j] = a[i] === b[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  const found = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      found.push([" ", a[i++]]);
      j++;
    } else if (j >= b.length || (i < a.length && longest[i + 1][j] >= longest[i][j + 1])) found.push(["-", a[i++]]);
    else found.push(["+", b[j++]]);
  }
  return found;
}

/** The lines that differ with `around` lines before and after; a gap is ["…", ""]. */
export function excerpt(all, around = 2) {
  const near = all.map((_, n) => all.slice(Math.max(0, n - around), n + around + 1).some(([sign]) => sign !== " "));
  const found = [];
  all.forEach((line, n) => {
    if (near[n]) found.push(line);
    else if (n > 0 && near[n - 1]) found.push(["…", ""]);
  });
  return found;
}
