//! What is erased, and what may be made of its id afterwards.

use super::{MIB, Node, want};
use crate::{Erasure, Error, InitOptions, PoolId, VolumeSpec};

#[test]
fn deleting_what_is_unknown_proves_nothing_unless_its_pool_is_here() {
    let node = Node::new();
    let (p, pool) = node.start();
    assert!(matches!(
        p.delete("never"),
        Err(Error::UnknownVolume { .. })
    ));
    p.delete_from(&pool, "never", &Erasure::default()).unwrap();
    p.delete("never").unwrap();
    let absent = PoolId::new("disk9-0123456789ab").unwrap();
    assert!(matches!(
        p.delete_from(&absent, "v", &Erasure::default()),
        Err(Error::PoolMissing { .. })
    ));
    node.disk("disk1", "u2", 1024 * MIB);
    let other = p.init_pool("disk1", &InitOptions::default()).unwrap();
    p.create(&pool, &want("v")).unwrap();
    assert!(matches!(
        p.delete_from(&other.id.unwrap(), "v", &Erasure::default()),
        Err(Error::AlreadyExists { .. })
    ));
    assert!(p.find("v").is_some());
}

#[test]
fn what_no_pod_used_may_be_made_again_by_another_object() {
    let node = Node::new();
    let (p, pool) = node.start();
    let of = |incarnation: &str| VolumeSpec {
        incarnation: Some(incarnation.to_owned()),
        ..want("v")
    };
    let erase = |incarnation: &str, unused| {
        let erasure = Erasure {
            incarnation: Some(incarnation.to_owned()),
            unused,
        };
        p.delete_from(&pool, "v", &erasure).unwrap();
    };
    let is_refused = |want: &VolumeSpec| match p.create(&pool, want) {
        Ok(_) => false,
        Err(Error::Tombstoned { .. }) => true,
        Err(error) => panic!("{error}"),
    };
    assert!(!is_refused(&of("1")));
    erase("1", true);
    assert!(is_refused(&of("1")), "its request may be late");
    assert!(is_refused(&want("v")), "nobody says that this is another");
    let adopted = VolumeSpec {
        expect_existing: true,
        ..of("2")
    };
    assert!(is_refused(&adopted), "it was there, and is erased");
    assert!(!is_refused(&of("2")));
    erase("2", false);
    assert!(is_refused(&of("3")), "pods may have used the second");
    // Also when the first is erased once more, late.
    erase("1", true);
    assert!(is_refused(&of("3")));
}
