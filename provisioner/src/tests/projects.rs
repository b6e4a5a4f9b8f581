//! Volumes with project quotas, on the faked machine.

use std::fs;

use super::{MIB, Node, PATIENCE, want};
use crate::sys::Project;
use crate::{Provisioner, VolumeSpec};

fn start() -> (Node, Provisioner, crate::PoolId) {
    let node = Node::new();
    node.fake.make_projects(&node.pool("disk0"));
    let (p, pool) = node.start();
    (node, p, pool)
}

/// The only project that has a limit.
fn limited(node: &Node) -> (u32, Project) {
    let projects = node.fake.projects();
    let mut limited = projects.into_iter().filter(|(_, it)| it.limit.is_some());
    let only = limited.next().unwrap();
    assert_eq!(limited.next(), None);
    only
}

#[test]
fn a_volume_gets_its_share_of_the_inodes_and_more_when_it_grows() {
    let (node, p, pool) = start();
    let large = VolumeSpec {
        size: 512 * MIB,
        ..want("v")
    };
    p.create(&pool, &large).unwrap();
    // Half of the disk, and of its inodes.
    assert_eq!(limited(&node).1.inode_limit, Some(1 << 15));
    p.expand("v", 768 * MIB).unwrap();
    assert_eq!(limited(&node).1.inode_limit, Some(3 << 14));
    p.delete("v").unwrap();
    assert!(p.settle(PATIENCE));
    let free = |(_, it): (u32, Project)| it == Project::default();
    assert!(node.fake.projects().into_iter().all(free));
}

#[test]
fn a_volume_of_an_older_program_is_limited_when_its_pool_is_taken_up() {
    let (node, p, pool) = start();
    p.create(&pool, &want("v")).unwrap();
    let (number, made) = limited(&node);
    assert_eq!(made.inode_limit, Some(2048));
    drop(p);
    for (inodes, limit) in [(7, 2048), (5000, 6024)] {
        let old = Project {
            inodes,
            inode_limit: None,
            ..made
        };
        node.fake.set_project(number, old);
        drop(node.open());
        let settled = limited(&node).1;
        // Whoever has more already can go on.
        assert_eq!(settled.inode_limit, Some(limit), "{inodes}");
        assert_eq!(settled.limit, made.limit);
    }
}

#[test]
fn growth_by_a_little_is_no_way_round_the_limit() {
    let (node, p, pool) = start();
    p.create(&pool, &want("v")).unwrap();
    let (number, made) = limited(&node);
    let full = Project {
        inodes: 2048,
        ..made
    };
    node.fake.set_project(number, full);
    p.expand("v", 33 * MIB).unwrap();
    assert_eq!(limited(&node).1.inode_limit, Some(2112));
}

#[test]
fn a_crash_between_the_data_and_its_project_leaves_no_number_taken() {
    let (node, p, pool) = start();
    p.create(&pool, &want("v")).unwrap();
    drop(p);
    let (number, _) = limited(&node);
    let trash = node.pool("disk0").join("trash/v");
    fs::rename(node.pool("disk0").join("volumes/v"), &trash).unwrap();
    fs::remove_dir(trash.join("data")).unwrap();
    let p = node.open();
    assert!(p.settle(PATIENCE));
    assert!(!trash.exists());
    assert_eq!(node.fake.projects()[&number], Project::default());
}
