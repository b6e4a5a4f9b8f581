//! The files that make a pool describe itself: its identity, one record per
//! volume, one tombstone per volume that was erased on purpose.

use serde::{Deserialize, Serialize};

use crate::backend::DataSpec;
use crate::fs::envelope::Document;
use crate::types::{Backend, ClaimRef, PoolId, SetRef, Source, VolumeMode, VolumeSpec};

/// Who a pool is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    /// The id.
    pub(crate) id: PoolId,
    /// UUID of the filesystem that the pool was made on.
    pub(crate) fs_uuid: Option<String>,
    /// Type of that filesystem.
    pub(crate) fstype: String,
    /// When (RFC 3339, UTC).
    pub(crate) created: String,
    /// Bytes that volumes may take in all, if a person said so.
    pub(crate) capacity: Option<u64>,
    /// Whether Berth switched the filesystem's quotas on.
    pub(crate) enabled_quotas: bool,
    /// It was made in a directory that is no mount point, of a filesystem that the
    /// system uses too.
    #[serde(default)]
    pub(crate) shared: bool,
}

impl Document for Identity {
    const KIND: &'static str = "berth-pool";
    const VERSION: u64 = 1;
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeRecord {
    /// The id; also the name of its directory.
    pub(crate) id: String,
    /// The claim.
    pub(crate) claim: Option<ClaimRef>,
    /// The set behind the claim.
    pub(crate) set: Option<SetRef>,
    /// Bytes asked for.
    pub(crate) size: u64,
    /// Bytes that the backend enforces.
    pub(crate) enforced: u64,
    /// Backend that made it.
    pub(crate) backend: Backend,
    /// Directory tree or block device.
    pub(crate) mode: VolumeMode,
    /// The pool.
    pub(crate) pool: PoolId,
    /// UUID of the filesystem.
    pub(crate) fs_uuid: Option<String>,
    /// When (RFC 3339, UTC).
    pub(crate) created: String,
    /// Id of the subvolume, and of its qgroup; written before the volume appears.
    pub(crate) subvolume: Option<u64>,
    /// Id of the project whose quota limits it; written before the volume appears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<u32>,
    /// What it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Source>,
    /// Bytes that were enforced before the growth that is going on: an image may
    /// still be that short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) growing_from: Option<u64>,
    /// Its image's bytes are taken only when they are written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) sparse: bool,
    /// It may share blocks with what it was copied from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) shares: bool,
}

impl Document for VolumeRecord {
    const KIND: &'static str = "berth-volume";
    const VERSION: u64 = 1;
}

impl VolumeRecord {
    /// In what `want` differs from this volume, if it does. The size may be
    /// smaller than the volume's, because volumes grow and requests are repeated.
    pub(crate) fn difference(&self, want: &VolumeSpec, pool: &PoolId) -> Option<String> {
        let uid = |claim: &Option<ClaimRef>| claim.as_ref().map(|c| c.uid.clone());
        if self.pool != *pool {
            return Some(format!("it is in pool {}, not {pool}", self.pool));
        }
        if want.claim.is_some() && uid(&self.claim) != uid(&want.claim) {
            return Some("it belongs to another claim".into());
        }
        if self.mode != want.mode {
            return Some(format!("its mode is {:?}, not {:?}", self.mode, want.mode));
        }
        if want.backend.is_some_and(|backend| backend != self.backend) {
            return Some(format!("its backend is {}", self.backend));
        }
        if want.source != self.source && want.source.is_some() {
            return Some("it was made from another source".into());
        }
        if want.size > self.size {
            return Some(format!(
                "it was made for {} bytes, not {}; expand it",
                self.size, want.size
            ));
        }
        None
    }
}

impl VolumeRecord {
    /// What its backend needs to know.
    pub(crate) fn data_spec(&self) -> DataSpec {
        DataSpec {
            backend: self.backend,
            mode: self.mode,
            enforced: self.enforced,
            least: self.growing_from.unwrap_or(self.enforced),
            sparse: self.sparse,
            shares: self.shares,
            subvolume: self.subvolume,
            project: self.project,
        }
    }
}

/// What a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotRecord {
    /// The id; also the name of its directory.
    pub(crate) id: String,
    /// The volume that it was taken of.
    pub(crate) volume: String,
    /// That volume's size, asked for and enforced, when it was taken.
    pub(crate) size: u64,
    /// See `size`.
    pub(crate) enforced: u64,
    /// Bytes of the pool's room that it holds.
    pub(crate) reserved: u64,
    /// Backend that took it.
    pub(crate) backend: Backend,
    /// Directory tree or block device.
    pub(crate) mode: VolumeMode,
    /// The pool.
    pub(crate) pool: PoolId,
    /// When (RFC 3339, UTC).
    pub(crate) created: String,
    /// Id of the subvolume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subvolume: Option<u64>,
    /// Id of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<u32>,
    /// It may share blocks with its volume.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) shares: bool,
}

impl Document for SnapshotRecord {
    const KIND: &'static str = "berth-snapshot";
    const VERSION: u64 = 1;
}

impl SnapshotRecord {
    /// What its backend needs to know.
    pub(crate) fn data_spec(&self) -> DataSpec {
        DataSpec {
            backend: self.backend,
            mode: self.mode,
            enforced: self.enforced,
            least: self.enforced,
            sparse: true,
            shares: self.shares,
            subvolume: self.subvolume,
            project: self.project,
        }
    }
}

/// What was erased on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tombstone {
    /// The volume's id.
    pub(crate) id: String,
    /// The claim that it was for.
    pub(crate) claim: Option<ClaimRef>,
    /// Bytes that it was made for.
    pub(crate) size: u64,
    /// When (RFC 3339, UTC).
    pub(crate) erased: String,
    /// Which object was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) incarnation: Option<String>,
    /// No pod can ever have used the volume.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unused: bool,
}

impl Document for Tombstone {
    const KIND: &'static str = "berth-tombstone";
    const VERSION: u64 = 1;
}

/// Now, as records write it.
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second())
        .expect("a timestamp without its fraction is one")
        .to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fs::envelope;
    use proptest::prelude::*;

    fn claims() -> impl Strategy<Value = Option<ClaimRef>> {
        proptest::option::of(("\\PC{0,20}", "\\PC{0,20}", "\\PC{0,20}").prop_map(
            |(namespace, name, uid)| ClaimRef {
                namespace,
                name,
                uid,
            },
        ))
    }

    fn sets() -> impl Strategy<Value = Option<SetRef>> {
        proptest::option::of(("\\PC{0,20}", "\\PC{0,20}", any::<i32>()).prop_map(
            |(kind, name, ordinal)| SetRef {
                kind,
                name,
                ordinal,
            },
        ))
    }

    proptest! {
        #[test]
        fn any_record_survives_the_disk(
            id in "[a-z0-9][a-z0-9.-]{0,127}",
            claim in claims(),
            set in sets(),
            size: u64,
            enforced: u64,
            subvolume: Option<u64>,
            fs_uuid in proptest::option::of("\\PC{0,40}"),
        ) {
            let record = VolumeRecord {
                id,
                claim,
                set,
                size,
                enforced,
                backend: Backend::Btrfs,
                mode: VolumeMode::Filesystem,
                pool: PoolId::new("disk0-0123456789ab").unwrap(),
                fs_uuid,
                created: now(),
                subvolume,
                project: subvolume.map(|id| id as u32),
                source: subvolume.map(|id| Source::Snapshot(id.to_string())),
                growing_from: subvolume,
                sparse: subvolume.is_some(),
                shares: subvolume.is_none(),
            };
            prop_assert_eq!(envelope::decode::<VolumeRecord>(&envelope::encode(&record)), Ok(record));
        }
    }

    /// Disks hold records of earlier versions: what is written here must stay.
    #[test]
    fn a_record_has_the_form_that_disks_hold() {
        let text = concat!(
            r#"{"id":"pvc-1","claim":{"namespace":"shop","name":"data-web-0","uid":"1"},"#,
            r#""set":{"kind":"OrdinalSet","name":"web","ordinal":0},"size":100,"enforced":200,"#,
            r#""backend":"project-quota","mode":"Filesystem","pool":"disk0-0123456789ab","#,
            r#""fsUuid":"5e0d1c1a-0000-4000-8000-000000000001","created":"2026-01-02T03:04:05Z","#,
            r#""subvolume":null,"project":7,"source":{"snapshot":"snap-1"},"sparse":true}"#,
        );
        let record: VolumeRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.source, Some(Source::Snapshot("snap-1".into())));
        assert_eq!(record.backend, Backend::ProjectQuota);
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
    }

    #[test]
    fn what_makes_a_repeated_request_another_volume() {
        let pool = PoolId::new("disk0-0123456789ab").unwrap();
        let claim = |uid: &str| ClaimRef {
            namespace: "default".into(),
            name: "data-web-0".into(),
            uid: uid.into(),
        };
        let record = VolumeRecord {
            id: "pvc-1".into(),
            claim: Some(claim("1")),
            set: None,
            size: 100,
            enforced: 200,
            backend: Backend::Btrfs,
            mode: VolumeMode::Filesystem,
            pool: pool.clone(),
            fs_uuid: None,
            created: now(),
            subvolume: Some(256),
            project: None,
            source: None,
            growing_from: None,
            sparse: false,
            shares: false,
        };
        let want = VolumeSpec {
            id: "pvc-1".into(),
            size: 100,
            claim: Some(claim("1")),
            set: None,
            backend: None,
            mode: VolumeMode::Filesystem,
            source: None,
            sparse: false,
            incarnation: None,
            expect_existing: false,
        };
        assert_eq!(record.difference(&want, &pool), None);
        let smaller = VolumeSpec {
            size: 50,
            ..want.clone()
        };
        assert_eq!(record.difference(&smaller, &pool), None);
        for other in [
            VolumeSpec {
                size: 101,
                ..want.clone()
            },
            VolumeSpec {
                claim: Some(claim("2")),
                ..want.clone()
            },
            VolumeSpec {
                mode: VolumeMode::Block,
                ..want.clone()
            },
            VolumeSpec {
                backend: Some(Backend::Image),
                ..want.clone()
            },
        ] {
            assert!(record.difference(&other, &pool).is_some(), "{other:?}");
        }
        let elsewhere = PoolId::new("disk1-0123456789ab").unwrap();
        assert!(record.difference(&want, &elsewhere).is_some());
    }
}
