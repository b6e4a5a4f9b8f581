//! Parameters of a StorageClass: known ones are obeyed, any other is refused, none
//! is ignored. The controller reads them from the class, the agent from a request to
//! make a volume; both get the same answer from here.

use std::collections::BTreeMap;

use crate::Backend;

/// Backend to use instead of the pool's best: `btrfs`, `project-quota`, `image` or
/// `directory`.
pub const BACKEND: &str = "backend";

/// `none` makes plain directories without a size limit.
pub const LIMIT: &str = "limit";

/// `true` takes an image's bytes from the pool's filesystem only when they are
/// written; the ledger promises them all the same. Only with backend `image`.
pub const SPARSE: &str = "sparse";

/// Filesystem inside an image; only `ext4`.
pub const FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// What a class's parameters ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassParameters {
    /// Backend that is demanded; the pool's best when absent.
    pub backend: Option<Backend>,
    /// Images take their bytes only when they are written.
    pub sparse: bool,
}

/// A parameter that is not known, or contradicts another. The text names it and says
/// what there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidParameter(String);

/// Reads the parameters of a class.
///
/// # Errors
/// [`InvalidParameter`] for the first, in the order of their names, that is wrong.
pub fn parse<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<ClassParameters, InvalidParameter> {
    read(&parameters.into_iter().collect()).map_err(InvalidParameter)
}

fn read(parameters: &BTreeMap<&str, &str>) -> Result<ClassParameters, String> {
    let mut backend = None;
    let mut unlimited = false;
    let mut sparse = false;
    for (key, value) in parameters {
        match *key {
            BACKEND => backend = Some(value.parse::<Backend>().map_err(|e| e.to_string())?),
            LIMIT if *value == "none" => unlimited = true,
            LIMIT => {
                return Err(format!(
                    "limit {value:?} is not known; the only one is \"none\""
                ));
            }
            SPARSE => {
                sparse = value.parse().map_err(|_| {
                    format!("sparse {value:?} is not known; use \"true\" or \"false\"")
                })?;
            }
            FS_TYPE if *value == "ext4" => {}
            FS_TYPE => {
                return Err(format!(
                    "{FS_TYPE} {value:?} is not known; the only one is \"ext4\""
                ));
            }
            _ => {
                return Err(format!(
                    "parameter {key:?} is not known; Berth knows {BACKEND}, {LIMIT}, {SPARSE} and {FS_TYPE}"
                ));
            }
        }
    }
    let backend = match (backend, unlimited) {
        (None | Some(Backend::Directory), true) => Some(Backend::Directory),
        (Some(kind), true) => {
            return Err(format!(
                "backend {kind} has a size limit, which limit \"none\" contradicts; leave one of them out"
            ));
        }
        (Some(Backend::Directory), false) => {
            return Err(
                "backend directory limits no size; say so with the parameter limit: none"
                    .to_owned(),
            );
        }
        (backend, false) => backend,
    };
    if sparse && backend != Some(Backend::Image) {
        return Err("sparse is for images; add the parameter backend: image".to_owned());
    }
    Ok(ClassParameters { backend, sparse })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(given: &[(&str, &str)], expected: Expect) {
        let shown = match parse(given.iter().copied()) {
            Ok(parameters) => format!("{:?} {}", parameters.backend, parameters.sparse),
            Err(refused) => refused.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn parameters_are_known_or_refused() {
        check(&[], expect!["None false"]);
        check(
            &[("backend", "image"), (FS_TYPE, "ext4")],
            expect!["Some(Image) false"],
        );
        check(
            &[("backend", "image"), ("sparse", "true")],
            expect!["Some(Image) true"],
        );
        check(&[("sparse", "false")], expect!["None false"]);
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
            &[(FS_TYPE, "xfs")],
            expect![[r#"csi.storage.k8s.io/fstype "xfs" is not known; the only one is "ext4""#]],
        );
    }

    #[test]
    fn only_images_are_sparse() {
        let refused = "sparse is for images; add the parameter backend: image";
        for other in [None, Some(("backend", "btrfs")), Some(("limit", "none"))] {
            let given = [("sparse", "true")].into_iter().chain(other);
            let answer = parse(given).map_err(|error| error.to_string());
            assert_eq!(answer, Err(refused.to_owned()), "{other:?}");
        }
    }
}
