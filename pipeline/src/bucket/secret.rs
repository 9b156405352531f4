//! Credentials in addresses: found wherever somebody may have put them, and never shown.
//!
//! Whatever stands before an `@` in an address is a secret, with or without a password: many services take a token as the user. The one exception is
//! how Azure writes a container, `abfss://container@account.dfs.core.windows.net`.

/// Schemes after which an address is one even without its two slashes: `https:token@host` is what browsers and libraries take it for.
const KNOWN: [&str; 14] = [
    "http", "https", "s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss", "wasb", "wasbs", "ftp",
];

/// What an address consists of, as far as secrets are concerned: byte offsets.
struct Address {
    /// Begin of what follows scheme and slashes.
    host: usize,
    /// Just behind the last `@` of the authority.
    at: Option<usize>,
    /// Begin of the query or fragment.
    query: Option<usize>,
}

fn address(text: &str) -> Option<Address> {
    let colon = text.find(':')?;
    let scheme = &text[..colon];
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(letters) {
        return None;
    }
    let rest = &text[colon + 1..];
    let slashes = rest.len() - rest.trim_start_matches(['/', '\\']).len();
    let scheme = scheme.to_ascii_lowercase();
    if slashes < 2 && !KNOWN.contains(&scheme.as_str()) {
        return None;
    }
    let host = colon + 1 + slashes;
    let end = text[host..].find(['/', '\\', '?', '#']).map_or(text.len(), |n| host + n);
    let at = text[host..end].rfind('@').map(|n| host + n + 1);
    let container =
        |user: &str| (3..=63).contains(&user.len()) && user.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let azure =
        at.is_some_and(|at| matches!(scheme.as_str(), "abfs" | "abfss") && container(&text[host..at - 1]) && text[at..end].contains("."));
    Some(Address {
        host,
        at: at.filter(|_| !azure),
        query: text[host..].find(['?', '#']).map(|n| host + n),
    })
}

/// A value as it may be shown: user, password, query string and fragment of an address are cut. Any other text stays.
#[must_use]
pub fn hidden(value: &str) -> String {
    let begin = value.len() - value.trim_start().len();
    let Some(address) = address(&value[begin..]) else {
        return value.to_owned();
    };
    let text = &value[begin..];
    let to = address.query.unwrap_or(text.len());
    let (user, from) = address.at.map_or(("", address.host), |at| ("***@", at));
    // The `@` may stand behind the query's begin only if there is none in the authority.
    let query = address
        .query
        .map_or("", |q| if text[q..].starts_with('?') { "?***" } else { "#***" });
    format!("{}{}{user}{}{query}", &value[..begin], &text[..address.host], &text[from..to])
}

/// Whether a value holds a user or a password.
#[must_use]
pub fn has_user(value: &str) -> bool {
    address(value.trim_start()).is_some_and(|a| a.at.is_some())
}

/// Running text with [`hidden`] addresses.
#[must_use]
pub fn hidden_in_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '(' | ')' | ',' | '=' | '“' | '”');
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(ends).unwrap_or(rest.len());
        shown.push_str(&hidden(&rest[..end]));
        let after = rest[end..].chars().next().map_or(0, char::len_utf8);
        shown.push_str(&rest[end..end + after]);
        rest = &rest[end + after..];
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_queries_are_cut_from_every_kind_of_address() {
        for (value, shown) in [
            ("https://CANARY@host/x", "https://***@host/x"),
            ("https://me:CANARY@host:9000/x@y", "https://***@host:9000/x@y"),
            ("HTTPS://CANARY@host", "HTTPS://***@host"),
            ("  https://CANARY@host", "  https://***@host"),
            ("https:CANARY@host/x", "https:***@host/x"),
            ("https:/CANARY@host/x", "https:/***@host/x"),
            (r"https:\\CANARY@host\x", r"https:\\***@host\x"),
            ("https://a@CANARY@host", "https://***@host"),
            ("s3://CANARY@bucket/x", "s3://***@bucket/x"),
            ("az://CANARY@container/x", "az://***@container/x"),
            (
                "abfss://CANARY@account.dfs.core.windows.net/x",
                "abfss://***@account.dfs.core.windows.net/x",
            ),
            (
                "abfss://me:canary@account.dfs.core.windows.net/x",
                "abfss://***@account.dfs.core.windows.net/x",
            ),
            ("new+scheme://CANARY@host", "new+scheme://***@host"),
            ("https://host/x?sig=CANARY@y", "https://host/x?***"),
            ("https://host/x#CANARY", "https://host/x#***"),
            ("https://CANARY@host?sig=CANARY", "https://***@host?***"),
        ] {
            assert_eq!(hidden(value), shown);
            assert_eq!(has_user(value), shown.contains('@') && shown.contains("***@"), "{value}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for value in [
            "abfss://container-1@account.dfs.core.windows.net/x",
            "https://host/folder@v2/x.tar",
            "s3://bucket/a@b",
            "data/me@home/x",
            "exp:1@home",
            "nan@120-130",
            "C:\\me@home",
            "",
            "://",
            "ä:ö@ü",
        ] {
            assert_eq!(hidden(value), value);
            assert!(!has_user(value), "{value}");
        }
    }

    #[test]
    fn running_text_is_cleaned_word_by_word() {
        let text =
            "--set data.train=https://CANARY@h/x: expected \"s3://k:CANARY@b\", (`https://h?CANARY`)\nunknown field `https:CANARY@h`";
        let shown = hidden_in_text(text);
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(
            shown.starts_with("--set data.train=https://***@h/x: expected \"s3://***@b\""),
            "{shown}"
        );
        assert_eq!(hidden_in_text("nothing to hide: a@b, c://d"), "nothing to hide: a@b, c://d");
    }
}
