//! How a volume is made: its backend, its mode, and what it starts from.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How a volume is made and limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// btrfs subvolume, limited by a qgroup.
    Btrfs,
    /// Directory, limited by a project quota (xfs, ext4).
    ProjectQuota,
    /// Image file behind a loop device.
    Image,
    /// Plain directory without a limit.
    Directory,
}

impl Backend {
    /// Every backend that there is a name for, the best first.
    pub const ALL: [Self; 4] = [
        Self::Btrfs,
        Self::ProjectQuota,
        Self::Image,
        Self::Directory,
    ];

    /// The name that records, StorageClass parameters, PVs and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::ProjectQuota => "project-quota",
            Self::Image => "image",
            Self::Directory => "directory",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No backend has this name; the message lists those that there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "backend {name:?} is not known; use one of {}",
    Backend::ALL.map(Backend::as_str).join(", ")
)]
pub struct UnknownBackend {
    name: String,
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == name);
        found.ok_or_else(|| UnknownBackend {
            name: name.to_owned(),
        })
    }
}

/// Directory tree or block device (`PersistentVolume.spec.volumeMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum VolumeMode {
    /// A mounted directory tree.
    #[default]
    Filesystem,
    /// A raw block device.
    Block,
}

/// What a new volume starts from instead of being empty; in the same pool.
///
/// Written as an object with one field, `{"snapshot": ".."}` or `{"volume": ".."}`,
/// on disks and in the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The snapshot of this name.
    Snapshot(String),
    /// The volume of this name, as it is at that moment.
    Volume(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_backend_is_written_by_its_name() {
        for backend in Backend::ALL {
            assert_eq!(to_value(backend).expect("JSON"), json!(backend.as_str()));
            assert_eq!(backend.as_str().parse(), Ok(backend));
        }
        let unknown = "zfs".parse::<Backend>().expect_err("no backend");
        assert_eq!(
            unknown.to_string(),
            "backend \"zfs\" is not known; use one of btrfs, project-quota, image, directory"
        );
    }

    #[test]
    fn a_source_is_exactly_one_thing() {
        let snapshot = Source::Snapshot("snap-1".to_owned());
        let volume = Source::Volume("pvc-1".to_owned());
        assert_eq!(
            to_value(&snapshot).expect("JSON"),
            json!({"snapshot": "snap-1"})
        );
        assert_eq!(to_value(&volume).expect("JSON"), json!({"volume": "pvc-1"}));
        for (value, source) in [
            (json!({"snapshot": "snap-1"}), Some(snapshot)),
            (json!({"volume": "pvc-1"}), Some(volume)),
            (json!({"snapshot": "snap-1", "volume": "pvc-1"}), None),
            (json!({}), None),
        ] {
            assert_eq!(from_value::<Source>(value.clone()).ok(), source, "{value}");
        }
    }
}
