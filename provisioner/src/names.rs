//! Names that come from outside and end up in paths. Whatever passes here can
//! neither leave its directory nor hide in it.

use berth_model::names::{is_dns_label, is_id};
use sha2::{Digest, Sha256};

use crate::Error;

/// A volume id: `[a-z0-9][a-z0-9.-]{0,127}`.
pub(crate) fn volume_id(id: &str) -> Result<(), Error> {
    if !is_id(id) {
        return Err(Error::invalid(
            "volume id",
            id,
            "must match [a-z0-9][a-z0-9.-]{0,127}",
        ));
    }
    Ok(())
}

/// The name of a pool's directory, where a program is to make it:
/// `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
pub(crate) fn pool_dir(name: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if !starts_well || name.len() > 63 || !name.bytes().all(allowed) {
        return Err(Error::invalid(
            "name of a pool's directory",
            name,
            "must match [A-Za-z0-9][A-Za-z0-9._-]{0,62}",
        ));
    }
    Ok(())
}

/// A DNS label (RFC 1123): at most 63 of `[a-z0-9-]`, no hyphen at either end.
pub(crate) fn dns_label(what: &'static str, name: &str) -> Result<(), Error> {
    if is_dns_label(name) {
        Ok(())
    } else {
        Err(Error::invalid(what, name, "must be a DNS label"))
    }
}

/// A DNS subdomain (RFC 1123): labels joined by dots, 253 characters in all.
pub(crate) fn dns_subdomain(what: &'static str, name: &str) -> Result<(), Error> {
    if name.len() <= 253 && name.split('.').all(is_label) {
        Ok(())
    } else {
        Err(Error::invalid(what, name, "must be a DNS name"))
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The id of a new pool: the directory's name as far as DNS allows, and 12 hex
/// digits of `entropy`.
pub(crate) fn pool_id(dir: &str, entropy: &[u8]) -> String {
    // 63 characters for a label, less the hyphen and the digits.
    const ROOM: usize = 63 - 13;
    let mut stem = String::new();
    for c in dir.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            stem.push(c);
        } else if !stem.ends_with('-') && !stem.is_empty() {
            stem.push('-');
        }
    }
    stem.truncate(ROOM);
    let stem = stem.trim_end_matches('-');
    let stem = if stem.is_empty() { "pool" } else { stem };
    let digest = Sha256::digest(entropy);
    format!("{stem}-{}", hex(&digest[..6]))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A UUID as people write it.
pub(crate) fn uuid(bytes: &[u8; 16]) -> String {
    let hex = hex(bytes);
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_ids_cannot_leave_their_directory() {
        for good in ["pvc-0a1b", "a", "0.x", &"a".repeat(128)] {
            assert!(volume_id(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-a",
            ".a",
            "A",
            "a\0",
            "a b",
            "ä",
            &"a".repeat(129),
        ] {
            assert!(volume_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn claim_names_are_dns_names() {
        for good in ["data-web-0", "a.b", "0"] {
            assert!(dns_subdomain("claim", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "a/b",
            "-a",
            "a-",
            "A",
            &"a".repeat(254),
        ] {
            assert!(dns_subdomain("claim", bad).is_err(), "{bad}");
        }
        assert!(dns_label("namespace", "a.b").is_err());
        assert!(dns_label("namespace", &"a".repeat(64)).is_err());
    }

    #[test]
    fn pool_ids_are_labels_whatever_the_directory_is_called() {
        for dir in [
            "disk0",
            "Disk 0",
            "ÄÖ",
            "---",
            "",
            &"x".repeat(300),
            "a.b_c",
            "a-",
        ] {
            let id = pool_id(dir, b"seed");
            assert!(dns_label("pool id", &id).is_ok(), "{dir:?} -> {id}");
        }
        assert!(pool_id("Disk 0", b"seed").starts_with("disk-0-"));
        assert_ne!(pool_id("d", b"1"), pool_id("d", b"2"));
    }
}
