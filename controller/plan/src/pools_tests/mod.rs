//! Grants, and what is written because of them.

mod told;

use super::*;
use crate::grants::grant;
use berth_api::{Backend, Pool, Problem, ProblemKind};
use expect_test::{Expect, expect};

/// One line each: `node n1 [label,...|- [silent]]`, `pool p1 [on=n1] [epoch=2] [path=/pools/0] [cordoned] [lost]`,
/// `report n1 p1 [Health]`.
fn view(text: &str) -> View {
    let mut view = View::default();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words[1].to_owned();
        match words[0] {
            "node" => {
                let labels = words
                    .get(2)
                    .filter(|l| **l != "-")
                    .into_iter()
                    .flat_map(|l| l.split(','));
                let labels = labels.map(|id| (names::pool_label(id), "present".to_owned()));
                let silent = (words.get(3) == Some(&"silent")).then_some(Timestamp::UNIX_EPOCH);
                let labels = labels.collect();
                view.nodes.insert(name, Node { labels, silent });
            }
            "pool" => {
                let mut pool = Pool::new(&name, Default::default());
                let mut status = PoolStatus::default();
                for word in &words[2..] {
                    match word.split_once('=').unwrap_or((word, "")) {
                        ("cordoned", _) => pool.spec.cordoned = true,
                        ("lost", _) => pool.spec.lost = true,
                        ("on", node) => status.node = Some(node.to_owned()),
                        ("path", path) => status.path = Some(path.to_owned()),
                        ("epoch", n) => status.epoch = n.parse().expect("a number"),
                        other => panic!("{other:?}"),
                    }
                }
                pool.status = Some(status);
                view.pools.insert(name, pool);
            }
            "report" => {
                let health = match words.get(3).copied().unwrap_or("Healthy") {
                    "Healthy" => PoolHealth::Healthy,
                    "LostMount" => PoolHealth::LostMount,
                    "ReadOnly" => PoolHealth::ReadOnly,
                    "Unresponsive" => PoolHealth::Unresponsive,
                    other => panic!("{other:?}"),
                };
                let report = view.reports.entry(name).or_default();
                report.pools.push(NodePool {
                    id: Some(words[2].to_owned()),
                    path: format!("/pools/{}", report.pools.len()),
                    health,
                    message: None,
                    troubles: Vec::new(),
                    filesystem: "btrfs".to_owned(),
                    filesystem_uuid: None,
                    backends: vec![Backend::Btrfs],
                    capacity: Bytes(100),
                    reserved: Bytes(10),
                    reserved_by_volumes: None,
                    room: None,
                    free: Bytes(90),
                    orphans: Vec::new(),
                    volumes: 0,
                });
            }
            other => panic!("{other:?}"),
        }
    }
    view
}

fn show(view: &View) -> String {
    let grants = grant(view);
    let mut out = String::new();
    for (id, grant) in &grants {
        let node = grant.node.as_deref().unwrap_or("-");
        let (epoch, standing, message) = (grant.epoch, grant.standing, &grant.message);
        out += &format!("{id} {node} {epoch} {standing:?}: {message}\n");
    }
    for write in writes(view, &grants, &BTreeMap::new(), Timestamp::UNIX_EPOCH) {
        out += &match write {
            Write::Create { id } => format!("create {id}\n"),
            Write::Status {
                id,
                status,
                urgency,
            } => {
                format!("status {id} {} {urgency:?}\n", status.conditions[0].status)
            }
            Write::Labels { node, set, remove } => format!("labels {node} +{set:?} -{remove:?}\n"),
        };
    }
    out
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&show(&view(text)));
}

/// Applies the writes, as the API server would.
fn apply(view: &mut View) -> bool {
    let grants = grant(view);
    let due = writes(view, &grants, &BTreeMap::new(), Timestamp::UNIX_EPOCH);
    for write in &due {
        match write.clone() {
            Write::Create { id } => {
                view.pools
                    .insert(id.clone(), Pool::new(&id, Default::default()));
            }
            Write::Status { id, status, .. } => {
                view.pools.get_mut(&id).expect("there").status = Some(*status);
            }
            Write::Labels { node, set, remove } => {
                let labels = &mut view.nodes.get_mut(&node).expect("there").labels;
                labels.retain(|key, _| !remove.contains(key));
                labels.extend(set.into_iter().map(|key| (key, "present".to_owned())));
            }
        }
    }
    !due.is_empty()
}

#[test]
fn a_new_pool_is_made_then_granted_then_labelled() {
    let mut all = view(
        "node n1
         report n1 p1",
    );
    expect![[r"
        p1 n1 1 Granted: on n1
        create p1
    "]]
    .assert_eq(&show(&all));
    assert!(apply(&mut all));
    expect![[r"
        p1 n1 1 Granted: on n1
        status p1 True Now
    "]]
    .assert_eq(&show(&all));
    assert!(apply(&mut all));
    expect![[r#"
        p1 n1 1 Granted: on n1
        labels n1 +{"pool.berth.dev/p1"} -{}
    "#]]
    .assert_eq(&show(&all));
    assert!(apply(&mut all));
    assert!(!apply(&mut all), "nothing is left to do");
}

#[test]
fn a_disk_that_moves_takes_its_grant_along() {
    check(
        "node n1 p1
         node n2
         pool p1 on=n1 epoch=1
         report n1 p1 LostMount
         report n2 p1",
        expect![[r#"
            p1 n2 2 Granted: on n2
            status p1 True Now
            labels n1 +{} -{"pool.berth.dev/p1"}
        "#]],
    );
    // The label of the new node comes after the grant was written.
    check(
        "node n1
         node n2
         pool p1 on=n2 epoch=2
         report n2 p1",
        expect![[r#"
            p1 n2 2 Granted: on n2
            status p1 True Now
            labels n2 +{"pool.berth.dev/p1"} -{}
        "#]],
    );
}

#[test]
fn a_node_that_is_not_ready_keeps_its_pools_and_gets_no_volumes() {
    check(
        "node n1 p1,p2 silent
         pool p1 on=n1 epoch=1
         pool p2 on=n1 epoch=1
         report n1 p1
         report n1 p2 ReadOnly",
        expect![[r#"
            p1 n1 1 Silent: node n1 is not ready since 1970-01-01T00:00:00Z: look at the node; its volumes stay, and no new ones are placed here
            p2 n1 1 Unhealthy: ReadOnly on n1
            status p1 False Now
            status p2 False Now
        "#]],
    );
}

#[test]
fn a_second_report_takes_nothing_from_the_holder() {
    check(
        "node n1 p1
         node n2
         pool p1 on=n1 epoch=1
         report n1 p1
         report n2 p1",
        expect![[r"
            p1 n1 1 Granted: on n1
            status p1 True Now
        "]],
    );
    // Nor does it when the holder's disk is in trouble, or a person cordoned it.
    check(
        "node n1 p1,p2
         node n2
         pool p1 on=n1 epoch=1 cordoned
         pool p2 on=n1 epoch=1
         report n1 p1
         report n1 p2 ReadOnly
         report n2 p1
         report n2 p2",
        expect![[r"
            p1 n1 1 Cordoned: on n1; cordoned: no new volumes are placed here
            p2 n1 1 Unhealthy: ReadOnly on n1
            status p1 True Now
            status p2 False Now
        "]],
    );
    // Every pool of the cluster, by one node that lies.
    let mut all = view(
        "node n1
         node n2
         node n3
         report n1 p1
         report n2 p2",
    );
    while apply(&mut all) {}
    let before = all.nodes.clone();
    for pool in ["p1", "p2"] {
        let lie = all.reports["n1"].pools[0].clone();
        let lies = all.reports.entry("n3".to_owned()).or_default();
        lies.pools.push(NodePool {
            id: Some(pool.to_owned()),
            ..lie
        });
    }
    while apply(&mut all) {}
    assert_eq!(all.nodes, before, "labels and so pods stay");
    for pool in all.pools.values() {
        let status = pool.status.clone().expect("written");
        let holds = |type_| {
            status
                .conditions
                .iter()
                .any(|c| c.type_ == type_ && c.status == "True")
        };
        assert!(holds("Ready") && !holds("Unique"), "{status:?}");
    }
}

#[test]
fn two_places_are_a_conflict_where_none_holds_the_grant() {
    // On one node: a second mount or a copy of the filesystem, and nothing tells which
    // of the two was granted.
    check(
        "node n1 p1
         pool p1 on=n1 epoch=1
         report n1 p1
         report n1 p1",
        expect![[r#"
            p1 n1 1 Conflict: reported by n1:/pools/0 and n1:/pools/1; unmount the copy, or, if the disk moved and its old node is gone, delete the old Node object
            status p1 False Now
            labels n1 +{} -{"pool.berth.dev/p1"}
        "#]],
    );
    // The path that was granted tells.
    check(
        "node n1 p1
         pool p1 on=n1 epoch=1 path=/pools/1
         report n1 p1
         report n1 p1",
        expect![[r"
            p1 n1 1 Granted: on n1
            status p1 True Now
        "]],
    );
    // Nobody held it: nobody gets it.
    check(
        "node n1
         node n2
         pool p1
         report n1 p1
         report n2 p1",
        expect![[r"
            p1 - 0 Conflict: reported by n1:/pools/0 and n2:/pools/0; unmount the copy, or, if the disk moved and its old node is gone, delete the old Node object
            status p1 False Now
        "]],
    );
    // The holder lost its disk: two others cannot both have it.
    check(
        "node n1 p1
         node n2
         node n3
         pool p1 on=n1 epoch=1
         report n1 p1 LostMount
         report n2 p1
         report n3 p1",
        expect![[r#"
            p1 n1 1 Conflict: reported by n2:/pools/0 and n3:/pools/0; unmount the copy, or, if the disk moved and its old node is gone, delete the old Node object
            status p1 False Now
            labels n1 +{} -{"pool.berth.dev/p1"}
        "#]],
    );
}

#[test]
fn the_word_of_a_removed_node_does_not_count() {
    check(
        "node n2
         pool p1 on=n1 epoch=1
         report n1 p1
         report n2 p1",
        expect![[r"
            p1 n2 2 Granted: on n2
            status p1 True Now
        "]],
    );
}
