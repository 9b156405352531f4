//! Numbers with units on the command line: `64MiB`, `512px`, `64Mpx`.

/// Splits `64MiB` into the number and the unit, lower case.
fn split(text: &str) -> Result<(f64, String), String> {
    let text = text.trim().replace('_', "");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| "must start with a number".to_owned())?;
    Ok((number, text[end..].trim().to_ascii_lowercase()))
}

fn whole(number: f64, factor: u64, least: u64) -> Result<u64, String> {
    let value = number * factor as f64;
    if value.fract() != 0.0 || value < least as f64 || value >= 2f64.powi(53) {
        return Err(format!("must be a whole number of at least {least}"));
    }
    Ok(value as u64)
}

/// Bytes: a plain number, or one with B, KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024).
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit.as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        other => {
            return Err(format!(
                "{other:?} is no unit of bytes; use B, KB, MB, GB, KiB, MiB or GiB, for example 64MiB"
            ));
        }
    };
    whole(number, factor, 1)
}

/// A count of pixels: a plain number, or one with px, Kpx, Mpx, Gpx.
pub(crate) fn pixels(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit.as_str() {
        "" | "px" => 1,
        "kpx" => 1000,
        "mpx" | "mp" => 1_000_000,
        "gpx" => 1_000_000_000,
        other => return Err(format!("{other:?} is no unit of pixels; use px or Mpx, for example 64Mpx")),
    };
    whole(number, factor, 1)
}

/// A length in pixels: a plain number or one with px.
pub(crate) fn side(text: &str) -> Result<u32, String> {
    let (number, unit) = split(text)?;
    if !matches!(unit.as_str(), "" | "px") {
        return Err(format!(
            "{unit:?} is no unit of length here; sides are in pixels, for example 512px"
        ));
    }
    let side = whole(number, 1, 1)?;
    u32::try_from(side)
        .ok()
        .filter(|s| (8..=65_535).contains(s))
        .ok_or_else(|| "must be 8 to 65535 pixels".into())
}

/// Bytes for people: `12.3 MiB`.
pub(crate) fn human(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1.5 kb"), Ok(1500));
        assert_eq!(bytes("8_000"), Ok(8000));
        assert_eq!(pixels("64Mpx"), Ok(64_000_000));
        assert_eq!(side("512px"), Ok(512));
        assert_eq!(side("96"), Ok(96));
    }

    #[test]
    fn names_the_wrong_unit_and_a_right_one() {
        assert!(bytes("64px").unwrap_err().contains("\"px\" is no unit of bytes"));
        assert!(pixels("64MiB").unwrap_err().contains("for example 64Mpx"));
        assert!(side("5cm").unwrap_err().contains("for example 512px"));
        assert!(bytes("many").unwrap_err().contains("number"));
        assert!(bytes("0.3B").is_err());
        assert!(bytes("0").is_err());
        assert!(side("4px").unwrap_err().contains("8 to 65535"));
    }
}
