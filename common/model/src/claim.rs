//! Who a volume belongs to: the claim it is bound to, and the set and ordinal
//! behind the claim.

use serde::{Deserialize, Serialize};

/// The PersistentVolumeClaim that a volume was made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim, `<template>-<set>-<ordinal>` for a set's claim.
    pub name: String,
    /// UID of the claim: a later claim of the same name is another claim.
    pub uid: String,
}

/// The set whose ordinal uses a volume, where there is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SetRef {
    /// Kind of the set: `OrdinalSet` or `StatefulSet`.
    pub kind: String,
    /// Name of the set, in the claim's namespace.
    pub name: String,
    /// The replica's number.
    pub ordinal: i32,
}

/// The ordinal in the name of a set's pod, if it has exactly the form that the set
/// gives: `<set>-<ordinal>`. `web-01` and `web-+1` are no pods of `web`.
pub fn ordinal_of(set: &str, pod: &str) -> Option<i32> {
    parse_ordinal(pod.strip_prefix(set)?.strip_prefix('-')?)
}

/// An ordinal as names and labels write it: digits, without a sign or a leading
/// zero, at most `i32::MAX`.
pub fn parse_ordinal(text: &str) -> Option<i32> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits_only = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (canonical && digits_only).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_have_one_form() {
        for (pod, ordinal) in [
            ("web-0", Some(0)),
            ("web-10", Some(10)),
            ("web-2147483647", Some(i32::MAX)),
            ("web-2147483648", None),
            ("web-01", None),
            ("web-00", None),
            ("web-+1", None),
            ("web--1", None),
            ("web-", None),
            ("web", None),
            ("web-1-x", None),
            ("other-1", None),
            ("web-api-1", None),
        ] {
            assert_eq!(ordinal_of("web", pod), ordinal, "{pod}");
        }
    }
}
