//! The classes that there is most and least of.

/// Classes that are listed from either end.
const LISTED: usize = 8;

/// Lines with the first and the last few of `classes`, which are sorted, the largest first; none twice.
pub(super) fn extremes<T>(classes: &[T], told: impl Fn(&T) -> String) -> Vec<String> {
    let line = |what: &str, some: &mut dyn Iterator<Item = &T>| {
        let all: Vec<String> = some.map(&told).collect();
        (!all.is_empty()).then(|| format!("    {what}: {}", all.join(", ")))
    };
    let rest = classes.iter().skip(LISTED).rev().take(LISTED);
    let lines = [line("largest", &mut classes.iter().take(LISTED)), line("smallest", &mut { rest })];
    lines.into_iter().flatten().collect()
}
