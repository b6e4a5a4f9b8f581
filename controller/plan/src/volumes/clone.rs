//! Cloning: from a claim's data source, another claim, to the Volume that holds the data.
//!
//! Anyone who may create claims in a namespace can write anything into a claim's
//! `dataSource` and `volumeName`, so those fields prove nothing. Whose data a volume
//! holds is shown by objects that such a person cannot write: the PersistentVolume's
//! `claimRef` and the Volume. Both must name the source claim by UID before its data is
//! copied. external-provisioner demands the same of claim and PersistentVolume ("claim
//! in dataSource not bound or invalid").

use berth_api::{Source, Volume, VolumeState};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{claim, pv, wait::ClaimWait};
use crate::snapshots::restore::Origin;

/// The objects between a claim and its source data, as they are now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain<'a> {
    /// The claim that is named as the source.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// The PersistentVolume that it names.
    pub pv: Option<&'a PersistentVolume>,
    /// The Volume that this PersistentVolume has as its handle.
    pub volume: Option<&'a Volume>,
}

/// The source data of `claim`, whose data source is the claim `name` of its namespace.
///
/// # Errors
/// What is awaited, or what is wrong, as a sentence for the claim's event. The sentence
/// reveals nothing about a volume that is not the source claim's.
pub fn origin(
    claim: &PersistentVolumeClaim,
    name: &str,
    chain: &Chain<'_>,
) -> Result<Origin, ClaimWait> {
    let what = format!("its data source, claim {name}");
    let Some(source) = chain.claim else {
        return Err(format!("waiting for {what}: create it").into());
    };
    if source.metadata.namespace != claim.metadata.namespace {
        return Err(format!("{what}, is in another namespace; copy within one").into());
    }
    if source.metadata.deletion_timestamp.is_some() {
        return Err(format!("{what}, is being deleted: name another").into());
    }
    let bound = chain.pv.filter(|pv| pv::is_bound(pv, source));
    let Some(pv) = bound else {
        return Err(ClaimWait::in_progress(format!(
            "waiting for {what}, to be bound"
        )));
    };
    let Some(volume) = pv::handle(pv).and(chain.volume) else {
        return Err(format!("its data source {name} is not a volume of Berth").into());
    };
    let spec = &volume.spec;
    if !pv::is_of(&spec.claim, source) {
        // Where the PersistentVolume was handed on, the Volume follows it.
        return Err(ClaimWait::in_progress(format!(
            "waiting for {what}, to be known as its volume's; is there a second PersistentVolume of that volume?"
        )));
    }
    if spec.state == VolumeState::Deleted {
        return Err(format!("{what}, is being erased: name another").into());
    }
    match claim::unlike(claim, name, spec.mode, spec.size) {
        Some(text) => Err(text.into()),
        None => Ok(Origin {
            pool: spec.pool.clone(),
            node: spec.node.clone(),
            source: Source::Volume(volume.metadata.name.clone().unwrap_or_default()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    /// The claim that asks, the source, its PersistentVolume and its Volume, all well.
    fn well() -> [Value; 4] {
        [
            json!({
                "metadata": {"name": "copy", "namespace": "shop", "uid": "u-copy"},
                "spec": {"resources": {"requests": {"storage": "1Gi"}}},
            }),
            json!({
                "metadata": {"name": "data", "namespace": "shop", "uid": "u1"},
                "spec": {"volumeName": "pvc-u1"},
                "status": {"phase": "Bound"},
            }),
            json!({
                "metadata": {"name": "pvc-u1"},
                "spec": {
                    "csi": {"driver": berth_api::DRIVER, "volumeHandle": "pvc-u1"},
                    "claimRef": {"namespace": "shop", "name": "data", "uid": "u1"},
                },
                "status": {"phase": "Bound"},
            }),
            json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "Volume",
                "metadata": {"name": "pvc-u1"},
                "spec": {
                    "pool": "p1", "node": "n1", "size": "1Gi",
                    "claim": {"namespace": "shop", "name": "data", "uid": "u1"},
                },
            }),
        ]
    }

    const CLAIM: usize = 0;
    const SOURCE: usize = 1;
    const PV: usize = 2;
    const VOLUME: usize = 3;

    fn outcome(change: impl Fn(&mut [Value; 4])) -> Result<Origin, ClaimWait> {
        let mut all = well();
        change(&mut all);
        let [claim, source, pv, volume] = all;
        fn read<T: serde::de::DeserializeOwned>(value: Value) -> Option<T> {
            (!value.is_null()).then(|| serde_json::from_value(value).expect("an object"))
        }
        let (source, pv, volume) = (read(source), read(pv), read(volume));
        let chain = Chain {
            claim: source.as_ref(),
            pv: pv.as_ref(),
            volume: volume.as_ref(),
        };
        let claim = read(claim).expect("a claim");
        origin(&claim, "data", &chain)
    }

    fn check(change: impl Fn(&mut [Value; 4]), expected: Expect) {
        expected.assert_eq(&match outcome(change) {
            Ok(Origin {
                pool,
                node,
                source: Source::Volume(volume),
            }) => format!("{volume} in {pool} on {node}"),
            Ok(other) => format!("{other:?}"),
            Err(wait) => wait.text,
        });
    }

    #[test]
    fn what_a_copy_starts_from() {
        check(|_| {}, expect!["pvc-u1 in p1 on n1"]);
        check(
            |a| a[SOURCE] = Value::Null,
            expect!["waiting for its data source, claim data: create it"],
        );
        check(
            |a| a[SOURCE]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            expect!["its data source, claim data, is being deleted: name another"],
        );
        check(
            |a| a[PV]["spec"]["csi"]["driver"] = json!("other.example"),
            expect!["its data source data is not a volume of Berth"],
        );
        check(
            |a| a[VOLUME] = Value::Null,
            expect!["its data source data is not a volume of Berth"],
        );
        check(
            |a| a[VOLUME]["spec"]["state"] = json!("Deleted"),
            expect!["its data source, claim data, is being erased: name another"],
        );
        check(
            |a| a[CLAIM]["spec"]["resources"]["requests"]["storage"] = json!("1023Mi"),
            expect!["its data source data has 1Gi: ask for as much, or more"],
        );
        check(
            |a| a[CLAIM]["spec"]["volumeMode"] = json!("Block"),
            expect!["its data source data is of volumeMode Filesystem"],
        );
    }

    /// A claim that merely names somebody's volume is not bound to it.
    #[test]
    fn a_wish_is_no_proof() {
        let waiting = || expect!["waiting for its data source, claim data, to be bound"];
        check(
            |a| a[SOURCE]["status"] = json!({"phase": "Pending"}),
            waiting(),
        );
        check(|a| a[SOURCE]["status"] = Value::Null, waiting());
        check(|a| a[PV] = Value::Null, waiting());
        check(|a| a[PV]["status"]["phase"] = json!("Released"), waiting());
        check(|a| a[PV]["spec"]["claimRef"] = Value::Null, waiting());
        check(
            |a| a[SOURCE]["spec"] = json!({"volumeName": "another"}),
            waiting(),
        );
        // What the claim says of itself is believed in nothing that the PV denies.
        for (field, other) in [("namespace", "victim"), ("name", "theirs"), ("uid", "u2")] {
            check(
                |a| a[PV]["spec"]["claimRef"][field] = json!(other),
                waiting(),
            );
        }
    }

    /// A PersistentVolume of one's own with the handle of somebody's volume.
    #[test]
    fn a_foreign_handle_gives_nothing() {
        let refused = || {
            expect![
                "waiting for its data source, claim data, to be known as its volume's; is there a second PersistentVolume of that volume?"
            ]
        };
        for (field, other) in [("namespace", "victim"), ("name", "theirs"), ("uid", "u2")] {
            check(
                |a| a[VOLUME]["spec"]["claim"][field] = json!(other),
                refused(),
            );
        }
        check(
            |a| a[SOURCE]["metadata"]["namespace"] = json!("victim"),
            expect!["its data source, claim data, is in another namespace; copy within one"],
        );
    }

    /// Whatever a refusal says, it says nothing of the other's volume.
    #[test]
    fn refusals_give_nothing_away() {
        let text = outcome(|a| {
            a[VOLUME]["spec"]["claim"] =
                json!({"namespace": "victim", "name": "secret", "uid": "u2"});
            a[VOLUME]["spec"]["size"] = json!("7Gi");
        })
        .expect_err("refused")
        .text;
        for secret in ["victim", "secret", "7Gi", "p1", "n1"] {
            assert!(!text.contains(secret), "{text:?} tells of {secret}");
        }
    }
}
