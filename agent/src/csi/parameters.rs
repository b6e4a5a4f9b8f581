//! Parameters of a volume or a snapshot: known ones are obeyed, any other is
//! refused, none is ignored but those that other programs address to each other.
//! Pure.

use std::collections::{BTreeMap, HashMap};

use berth_model::{Backend, ClaimRef, ClassParameters, class_parameters};
use tonic::Status;

/// Keys that Kubernetes' sidecars put in for their own use, but for the filesystem's:
/// that one people write into classes.
const SIDECARS: &str = "csi.storage.k8s.io/";

/// Namespace of the claim, where a sidecar says it (`--extra-create-metadata`).
const CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";

/// Name of the claim, where a sidecar says it.
const CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";

/// What a volume's parameters ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Backend that is demanded.
    pub(super) backend: Option<Backend>,
    /// An image is to be sparse.
    pub(super) sparse: bool,
    /// Namespace and name of the claim, for its link by name.
    pub(super) claim: Option<(String, String)>,
}

impl Parameters {
    /// The claim of a volume. There is no UID of it here, and the volume's id is as
    /// much permanently one thing's.
    pub(super) fn claim_of(&self, id: &str) -> Option<ClaimRef> {
        let (namespace, name) = self.claim.clone()?;
        Some(ClaimRef {
            namespace,
            name,
            uid: id.to_owned(),
        })
    }
}

/// Reads the parameters of a volume.
///
/// The error is INVALID_ARGUMENT and names the key and what there is.
pub(super) fn volume(given: &HashMap<String, String>) -> Result<Parameters, Status> {
    read(given).map_err(Status::invalid_argument)
}

/// Reads the parameters of a snapshot: there are none.
///
/// The error is INVALID_ARGUMENT and names the key.
pub(super) fn snapshot(given: &HashMap<String, String>) -> Result<(), Status> {
    let sorted: BTreeMap<_, _> = given.iter().collect();
    match sorted.keys().find(|key| !key.starts_with(SIDECARS)) {
        None => Ok(()),
        Some(key) => Err(Status::invalid_argument(format!(
            "parameter {key:?} is not known; snapshots have no parameters"
        ))),
    }
}

fn read(given: &HashMap<String, String>) -> Result<Parameters, String> {
    let for_us = given
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(|(key, _)| *key == class_parameters::FS_TYPE || !key.starts_with(SIDECARS));
    let ClassParameters { backend, sparse } =
        class_parameters::parse(for_us).map_err(|error| error.to_string())?;
    let claim = match (given.get(CLAIM_NAMESPACE), given.get(CLAIM_NAME)) {
        (Some(namespace), Some(name)) => Some((namespace.clone(), name.clone())),
        _ => None,
    };
    Ok(Parameters {
        backend,
        sparse,
        claim,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn map(given: &[(&str, &str)]) -> HashMap<String, String> {
        given
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn check(given: &[(&str, &str)], expected: Expect) {
        let shown = match read(&map(given)) {
            Ok(parameters) => format!("{:?} {}", parameters.backend, parameters.sparse),
            Err(refused) => refused,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn parameters_are_known_or_refused() {
        check(&[], expect!["None false"]);
        check(
            &[("backend", "image"), ("sparse", "true")],
            expect!["Some(Image) true"],
        );
        check(&[("limit", "none")], expect!["Some(Directory) false"]);
        check(
            &[("backend", "directory"), ("limit", "none")],
            expect!["Some(Directory) false"],
        );
        check(
            &[("backend", "directory")],
            expect!["backend directory limits no size; say so with the parameter limit: none"],
        );
        check(
            &[("backend", "btrfs"), ("limit", "none")],
            expect![[
                r#"backend btrfs has a size limit, which limit "none" contradicts; leave one of them out"#
            ]],
        );
        check(
            &[("backend", "zfs")],
            expect![[
                r#"backend "zfs" is not known; use one of btrfs, project-quota, image, directory"#
            ]],
        );
        check(
            &[("limit", "10Gi")],
            expect![[r#"limit "10Gi" is not known; the only one is "none""#]],
        );
        check(
            &[("sparse", "yes")],
            expect![[r#"sparse "yes" is not known; use "true" or "false""#]],
        );
        check(
            &[("pathPattern", "../..")],
            expect![[
                r#"parameter "pathPattern" is not known; Berth knows backend, limit, sparse and csi.storage.k8s.io/fstype"#
            ]],
        );
        check(
            &[("csi.storage.k8s.io/pv/name", "pvc-1")],
            expect!["None false"],
        );
        check(
            &[("csi.storage.k8s.io/fstype", "xfs")],
            expect![[r#"csi.storage.k8s.io/fstype "xfs" is not known; the only one is "ext4""#]],
        );
        check(
            &[("sparse", "true")],
            expect!["sparse is for images; add the parameter backend: image"],
        );
    }

    #[test]
    fn a_claim_is_known_by_both_its_names() {
        let claim = |given: &[(&str, &str)]| read(&map(given)).expect("known").claim_of("v");
        assert_eq!(claim(&[(CLAIM_NAME, "data-0")]), None);
        let both = claim(&[(CLAIM_NAME, "data-0"), (CLAIM_NAMESPACE, "shop")]).expect("a claim");
        assert_eq!(
            (
                both.namespace.as_str(),
                both.name.as_str(),
                both.uid.as_str()
            ),
            ("shop", "data-0", "v")
        );
    }

    #[test]
    fn snapshots_have_no_parameters() {
        let sidecars = map(&[("csi.storage.k8s.io/volumesnapshot/name", "s")]);
        assert!(snapshot(&sidecars).is_ok());
        let refused = snapshot(&map(&[("incremental", "true")])).expect_err("refused");
        assert!(refused.message().contains("\"incremental\""), "{refused}");
    }
}
