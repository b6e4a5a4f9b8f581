//! Sizes as people read them in `kubectl get` and as programs count them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes that is written as a Kubernetes quantity.
///
/// Serialised exactly: with the largest binary suffix that loses nothing
/// (`10Gi`), else as plain bytes (`1500000000`). Parsed from any quantity a
/// claim may hold (`1Gi`, `1G`, `0.5Gi`, `1e9`); fractions of a byte round up,
/// as the API server does. More than 64 bits hold counts as the most that they
/// hold: the API server takes such a claim, and it has to get an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const BINARY: [(&str, u32); 6] = [
    ("Ei", 60),
    ("Pi", 50),
    ("Ti", 40),
    ("Gi", 30),
    ("Mi", 20),
    ("Ki", 10),
];
const DECIMAL: [(&str, u32); 6] = [
    ("E", 18),
    ("P", 15),
    ("T", 12),
    ("G", 9),
    ("M", 6),
    ("k", 3),
];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 != 0 {
            for (suffix, shift) in BINARY {
                if self.0.trailing_zeros() >= shift {
                    return write!(f, "{}{suffix}", self.0 >> shift);
                }
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Bytes {
    /// For people: one decimal and the binary suffix that keeps the number
    /// short (`7.2Gi`). Loses precision; never parse it back.
    pub fn human(self) -> String {
        for (suffix, shift) in BINARY {
            let unit = 1u64 << shift;
            if self.0 >= unit {
                let tenths = (u128::from(self.0) * 10 / u128::from(unit)) as u64;
                return match tenths % 10 {
                    0 => format!("{}{suffix}", tenths / 10),
                    rest => format!("{}.{rest}{suffix}", tenths / 10),
                };
            }
        }
        format!("{}B", self.0)
    }
}

/// The text is not a quantity of bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a size in bytes; write for example 10Gi, 500M or 1073741824")]
pub struct ParseBytesError {
    text: String,
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Bytes).ok_or_else(|| ParseBytesError {
            text: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    // (multiplier, divisor) of the suffix; `m` is a thousandth, as in Quantity.
    let (multiplier, divisor): (u128, u128) = if suffix.is_empty() {
        (1, 1)
    } else if suffix == "m" {
        (1, 1000)
    } else if let Some((_, shift)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        (1 << shift, 1)
    } else if let Some((_, power)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        (10u128.pow(*power), 1)
    } else {
        let power = suffix.strip_prefix(['e', 'E'])?.parse::<u32>().ok()?;
        (10u128.saturating_pow(power), 1)
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?) * divisor;
    let digits = format!("{whole}{fraction}").parse::<u128>().ok()?;
    let bytes = digits
        .checked_mul(multiplier)
        .map(|all| all.div_ceil(scale));
    Some(bytes.map_or(u64::MAX, |all| all.try_into().unwrap_or(u64::MAX)))
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u64),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Number(n) => Ok(Self(n)),
            Raw::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^[0-9.]+(m|[KMGTPE]i|[kMGTPE]|[eE][0-9]+)?$",
            "x-kubernetes-int-or-string": true,
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_exactly() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1Ki"),
            (1 << 20, "1Mi"),
            (10 << 30, "10Gi"),
            ((1 << 30) + 1, "1073741825"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
        }
    }

    #[test]
    fn parses_what_claims_hold() {
        for (text, bytes) in [
            ("1k", 1000),
            ("1.5Gi", 3 << 29),
            ("0.1Ki", 103),
            ("1e3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("100m", 1),
            ("1500m", 2),
            (".5Ki", 512),
            ("99Ei", u64::MAX),
            ("9223372036854775807Gi", u64::MAX),
            ("1e99", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "Gi", ".", "-1", "1Gb", "1e", "1.2.3"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn is_short_for_people() {
        for (bytes, text) in [
            (7_730_941_133, "7.2Gi"),
            (10 << 30, "10Gi"),
            (512, "512B"),
            (1536, "1.5Ki"),
        ] {
            assert_eq!(Bytes(bytes).human(), text);
        }
    }
}
