//! Ids for what callers name. A name is the caller's word for a volume or a
//! snapshot, any text of up to 128 bytes, and may come again after what it named
//! was erased; an id stays that one volume's or snapshot's. Pure.

use berth_model::{SnapshotName, names::is_id};
use sha2::{Digest, Sha256};

/// What ids start with that are made from a name here. No name that starts so is
/// an id by itself, so derived ids never meet names.
const DERIVED: &str = "csi-";

/// Longest name (CSI's limit for every string that names a thing).
const LONGEST: usize = 128;

/// How often one name may come again after its volume was erased.
const TRIES: u32 = 1000;

/// Whether CSI allows a name: 1 to 128 bytes, without control characters other
/// than white space.
pub(super) fn is_name(text: &str) -> bool {
    let white = ['\t', '\n', '\r'];
    !text.is_empty()
        && text.len() <= LONGEST
        && text.chars().all(|c| !c.is_control() || white.contains(&c))
}

/// The ids that a name may stand for, in the order in which they are used: the
/// name itself where it can be one and is none of the cluster's, then ids made from it, one for each time that
/// the name came again after its volume was erased.
///
/// What a name stands for now is the first of them that exists; if none does, the
/// first that was never erased.
pub(super) fn candidate_ids(name: &str) -> impl Iterator<Item = String> {
    let digest = Sha256::digest(name.as_bytes());
    let hash: String = digest[..20].iter().map(|b| format!("{b:02x}")).collect();
    let own = is_id(name) && !name.starts_with(DERIVED) && name.parse::<SnapshotName>().is_err();
    let first = match own {
        true => name.to_owned(),
        false => format!("{DERIVED}{hash}"),
    };
    std::iter::once(first).chain((2..=TRIES).map(move |n| format!("{DERIVED}{hash}-{n}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_can_be_an_id_is_one() {
        let first = |name: &str| candidate_ids(name).next().expect("there is one");
        for name in ["a", "pvc-1234", "0.x-y", &"a".repeat(128)] {
            assert_eq!(first(name), name);
        }
        for name in [
            "A",
            "-a",
            "a_b",
            "a/b",
            "ä",
            "csi-1",
            "..",
            "snap-0a1b2c3d-0000-4000-8000-00000000000f",
            &"a".repeat(129),
        ] {
            let id = first(name);
            assert!(id.starts_with(DERIVED) && id.len() == 44, "{id}");
        }
    }

    #[test]
    fn no_two_names_share_an_id() {
        let names = ["web", "web-2", "csi-web", "WEB"];
        let mut all: Vec<String> = names.iter().copied().flat_map(candidate_ids).collect();
        assert!(all.iter().all(|id| is_id(id)));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        // A derived id, taken for a name, leads elsewhere.
        for id in candidate_ids("web").skip(1).take(3) {
            assert!(!candidate_ids(&id).any(|other| all.contains(&other)));
        }
    }

    #[test]
    fn names_are_text_without_control_characters() {
        for name in ["a b", "tab\there", "ünicode", &"x".repeat(128)] {
            assert!(is_name(name), "{name:?}");
        }
        for name in ["", "bell\u{7}", "del\u{7f}", &"x".repeat(129)] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
