//! Names that are made from other names, each with the way back: whoever needs the
//! UID in a volume's name parses it here, once.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest id of a volume or a snapshot: the longest name that CSI allows.
const MAX_ID: usize = 128;

/// Whether text can be the id of a volume or a snapshot on a disk:
/// `[a-z0-9][a-z0-9.-]{0,127}`. Such an id can neither leave its directory nor hide
/// in it.
pub fn is_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= MAX_ID
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'.' || b == b'-')
}

/// A DNS label (RFC 1123): 1 to 63 of `[a-z0-9-]`, no hyphen at either end.
pub fn is_dns_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(allowed)
}

/// A text that is not a name of the kind that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {why}")]
pub struct InvalidName {
    /// What it was to be.
    pub what: &'static str,
    /// The text.
    pub value: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Id of a pool: `<directory name>-<12 hex digits>`. Valid as the name of an object
/// and of a label (63 characters at most), and permanently the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolId(String);

impl PoolId {
    /// Checks that `id` is a DNS label.
    ///
    /// # Errors
    /// [`InvalidName`] otherwise.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidName> {
        let value = id.into();
        if is_dns_label(&value) {
            return Ok(Self(value));
        }
        Err(InvalidName {
            what: "pool id",
            value,
            why: "must be a DNS label",
        })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PoolId {
    type Error = InvalidName;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl FromStr for PoolId {
    type Err = InvalidName;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl From<PoolId> for String {
    fn from(id: PoolId) -> Self {
        id.0
    }
}

impl Borrow<str> for PoolId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of the Volume, of the PV and of the volume handle of a claim:
/// `pvc-<claim UID>`. One name from the claim's UID makes every step safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    const PREFIX: &'static str = "pvc-";

    /// The name of the volume of the claim with that UID, which is an API server's
    /// and not checked.
    pub fn of_claim(uid: &str) -> Self {
        Self(format!("{}{uid}", Self::PREFIX))
    }

    /// The UID of the claim that the volume was made for.
    pub fn claim_uid(&self) -> &str {
        self.0.strip_prefix(Self::PREFIX).unwrap_or_default()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = InvalidName;

    /// Takes any text after the prefix for a UID: what the claim's UID looks like is
    /// the API server's affair.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.strip_prefix(Self::PREFIX) {
            Some(uid) if !uid.is_empty() => Ok(Self(name.to_owned())),
            _ => Err(InvalidName {
                what: "volume name",
                value: name.to_owned(),
                why: "must be pvc-<claim UID>",
            }),
        }
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of the Snapshot, of the snapshot handle and of the snapshot on the disk:
/// `snap-<VolumeSnapshotContent UID>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(String);

impl SnapshotName {
    const PREFIX: &'static str = "snap-";

    /// The name of the snapshot of the VolumeSnapshotContent with that UID, which is
    /// an API server's and not checked.
    pub fn of_content(uid: &str) -> Self {
        Self(format!("{}{uid}", Self::PREFIX))
    }

    /// The UID of the VolumeSnapshotContent.
    pub fn content_uid(&self) -> &str {
        self.0.strip_prefix(Self::PREFIX).unwrap_or_default()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotName {
    type Err = InvalidName;

    /// Takes only a UUID after the prefix, so that names which other callers of the
    /// CSI services choose are not taken for the cluster's.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.strip_prefix(Self::PREFIX) {
            Some(uid) if is_uuid(uid) => Ok(Self(name.to_owned())),
            _ => Err(InvalidName {
                what: "snapshot name",
                value: name.to_owned(),
                why: "must be snap-<VolumeSnapshotContent UID>",
            }),
        }
    }
}

impl From<SnapshotName> for String {
    fn from(name: SnapshotName) -> Self {
        name.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A UUID as API servers write it: lower-case hex digits, 8-4-4-4-12.
fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'-';
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_snapshots_are_known_from_others() {
        let uid = "0a1b2c3d-0000-4000-8000-00000000000f";
        let own = SnapshotName::of_content(uid);
        assert_eq!(own.content_uid(), uid);
        assert_eq!(own.as_str().parse(), Ok(own.clone()));
        for other in [
            "snap-1",
            "0a1b2c3d-0000-4000-8000-00000000000f",
            "snap-0a1b2c3d-0000-4000-8000-00000000000g",
            "snap-0a1b2c3d-0000-4000-8000-00000000000f-2",
            "snap-0a1b2c3d000040008000-00000000000f",
        ] {
            assert!(other.parse::<SnapshotName>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_volume_name_has_the_way_back_to_its_claim() {
        let name = VolumeName::of_claim("0a1b");
        assert_eq!(name.to_string(), "pvc-0a1b");
        assert_eq!(name.claim_uid(), "0a1b");
        assert_eq!("pvc-0a1b".parse(), Ok(name));
        for other in ["pvc-", "pvc", "0a1b", "snap-0a1b", "PVC-0a1b"] {
            assert!(other.parse::<VolumeName>().is_err(), "{other}");
        }
    }

    #[test]
    fn pool_ids_are_dns_labels() {
        let longest = "a".repeat(63);
        for id in ["disk0-0123456789ab", "p", &longest] {
            let id = PoolId::new(id).expect("a label");
            let written = serde_json::to_value(&id).expect("JSON");
            assert_eq!(written, serde_json::json!(id.as_str()));
            assert_eq!(serde_json::from_value::<PoolId>(written).ok(), Some(id));
        }
        let too_long = "a".repeat(64);
        for id in ["", "-a", "a-", "A", "a.b", "a/b", "..", &too_long] {
            assert!(PoolId::new(id).is_err(), "{id}");
        }
        assert_eq!(
            PoolId::new("A").expect_err("no label").to_string(),
            "pool id \"A\": must be a DNS label"
        );
    }

    #[test]
    fn ids_cannot_leave_their_directory() {
        let (longest, too_long) = ("a".repeat(128), "a".repeat(129));
        for id in ["pvc-0a1b", "a", "0.x", &longest] {
            assert!(is_id(id), "{id}");
        }
        for id in [
            "", ".", "..", "../x", "a/b", "-a", ".a", "A", "a\0", "a b", "ä", &too_long,
        ] {
            assert!(!is_id(id), "{id}");
        }
    }
}
