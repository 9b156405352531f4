//! Just enough of PromQL's surface to list what an expression reads. Prometheus itself is the judge of its grammar.

/// An instant selector of an expression, such as `up{job="x"}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    /// Name of the metric.
    pub(crate) metric: String,
    /// The braces after it, or nothing.
    pub(crate) matchers: String,
}

const KEYWORDS: [&str; 13] = [
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
    "inf",
    "nan",
];
/// Keywords whose parentheses hold label names.
const LABEL_LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// All selectors of an expression, in order.
pub(crate) fn selectors(expr: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '"' => closing(rest, '"'),
            '[' => closing(rest, ']'),
            c if c.is_ascii_digit() => rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len()),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
                    .unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                let gap = after.len() - after.trim_start().len();
                match after.trim_start().chars().next() {
                    Some('(') if LABEL_LISTS.contains(&word) => end + gap + closing(after.trim_start(), ')'),
                    Some('(') => end,
                    // `sum by (…) (…)`: an aggregation, too.
                    _ if ["by", "without"].contains(&next_word(after)) => end,
                    _ if KEYWORDS.contains(&word) => end,
                    Some('{') => {
                        let braces = closing(after.trim_start(), '}');
                        found.push(Selector {
                            metric: word.into(),
                            matchers: after.trim_start()[..braces].into(),
                        });
                        end + gap + braces
                    }
                    _ => {
                        found.push(Selector {
                            metric: word.into(),
                            matchers: String::new(),
                        });
                        end
                    }
                }
            }
            c => c.len_utf8(),
        };
        rest = &rest[end..];
    }
    found
}

fn next_word(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len())]
}

/// Bytes up to and with the closing character of what `text` begins with; quoted parts inside are passed over.
fn closing(text: &str, close: char) -> usize {
    let mut quoted = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == close && !quoted {
            return at + c.len_utf8();
        }
        quoted ^= c == '"';
    }
    text.len()
}

#[test]
fn selectors_are_found_and_nothing_else() {
    let all = |expr| selectors(expr).into_iter().map(|s| s.metric + &s.matchers).collect::<Vec<_>>();
    assert_eq!(
        all("sum by (le, stage) (rate(a_bucket{x=\"}b\",y=~\"c|d\"}[5m]))"),
        ["a_bucket{x=\"}b\",y=~\"c|d\"}"]
    );
    assert_eq!(
        all("a / on (job) group_left (run) scalar(sum(b)) > 0.5e3 or c offset 15m and d"),
        ["a", "b", "c", "d"]
    );
    assert_eq!(all("histogram_quantile(0.99, rate(x_bucket[$__rate_interval]))"), ["x_bucket"]);
    assert_eq!(all("time() - (t_seconds > 0 or up)"), ["t_seconds", "up"]);
    assert_eq!(all("avg_over_time(rate(a[15m])[6h:5m] offset 15m) == bool 1"), ["a"]);
    assert!(all("time() * 1000").is_empty());
}
