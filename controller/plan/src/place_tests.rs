use super::*;
use expect_test::{Expect, expect};

const GI: u64 = 1 << 30;

/// `id node free [standing] [set:ordinal,ordinal]` one pool a line, sizes in Gi.
fn rooms(text: &str) -> BTreeMap<String, Room> {
    text.lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            let id = words.next().expect("an id").to_owned();
            let mut room = Room {
                node: words.next().expect("a node").to_owned(),
                standing: Standing::Granted,
                backends: vec![Backend::Btrfs],
                capacity: (words.next().expect("free").parse::<f64>().expect("Gi") * GI as f64)
                    as u64,
                taken: 0,
                given: None,
                volumes: 0,
                ordinals: BTreeMap::new(),
                ceiling: None,
            };
            for word in words {
                match word {
                    "cordoned" => room.standing = Standing::Cordoned,
                    "lost" => room.standing = Standing::LostMount,
                    "image" => room.backends = vec![Backend::Image],
                    _ => {
                        let (set, ordinals) = word.split_once(':').expect("set:ordinals");
                        let key = ("ns".to_owned(), "OrdinalSet".to_owned(), set.to_owned());
                        let ordinals = ordinals.split(',').map(|o| o.parse().expect("ordinal"));
                        room.ordinals.insert(key, ordinals.collect());
                    }
                }
            }
            (id, room)
        })
        .collect()
}

fn request(node: Option<&str>, owner: Option<(&str, i32)>, sizes: &[(&str, u64)]) -> Request {
    Request {
        node: node.map(str::to_owned),
        nodes: None,
        set: owner.map(|(set, _)| ("ns".into(), "OrdinalSet".into(), set.to_owned())),
        ordinal: owner.map(|(_, ordinal)| ordinal),
        wants: sizes
            .iter()
            .map(|(claim, size)| Want {
                claim: (*claim).to_owned(),
                size: size * GI,
                backend: None,
                mode: VolumeMode::Filesystem,
                source: None,
                avoid: BTreeSet::new(),
            })
            .collect(),
    }
}

fn check(request: &Request, pools: &str, expected: Expect) {
    let shown = match place(request, &rooms(pools)) {
        Placement::Placed { node, pools } => format!("{node}: {}", pools.join(" ")),
        Placement::NoRoom { claim, text } => format!("{claim}: {text}"),
    };
    expected.assert_eq(&shown);
}

#[test]
fn the_most_room_wins_without_a_set() {
    check(
        &request(Some("n1"), None, &[("a", 1)]),
        "p1 n1 5
         p2 n1 6
         p3 n2 9",
        expect!["n1: p2"],
    );
    // The smaller id where all is equal.
    check(
        &request(Some("n1"), None, &[("a", 1)]),
        "p2 n1 5
         p1 n1 5",
        expect!["n1: p1"],
    );
}

#[test]
fn replicas_that_share_a_node_get_disks_of_their_own() {
    check(
        &request(Some("n1"), Some(("web", 1)), &[("data-web-1", 1)]),
        "p1 n1 9 web:0
         p2 n1 2 other:0,1,2",
        expect!["n1: p2"],
    );
    // Fewest, where none is free of them.
    check(
        &request(Some("n1"), Some(("web", 3)), &[("data-web-3", 1)]),
        "p1 n1 9 web:0,1
         p2 n1 2 web:2",
        expect!["n1: p2"],
    );
    // Room comes first: what does not fit is no candidate.
    check(
        &request(Some("n1"), Some(("web", 1)), &[("data-web-1", 3)]),
        "p1 n1 9 web:0
         p2 n1 2",
        expect!["n1: p1"],
    );
}

#[test]
fn claims_of_one_pod_stay_together_where_they_fit() {
    let pod = [("data-web-1", 2), ("log-web-1", 1)];
    check(
        &request(Some("n1"), Some(("web", 1)), &pod),
        "p1 n1 9
         p2 n1 8",
        expect!["n1: p1 p1"],
    );
    check(
        &request(Some("n1"), Some(("web", 1)), &pod),
        "p1 n1 9 web:0
         p2 n1 8 web:1",
        expect!["n1: p2 p2"],
    );
    check(
        &request(Some("n1"), Some(("web", 1)), &pod),
        "p1 n1 2
         p2 n1 1",
        expect!["n1: p1 p2"],
    );
}

#[test]
fn all_claims_of_a_pod_or_none() {
    // The greedy choice (b on p1, the emptier) would leave no room for a.
    check(
        &request(Some("n1"), None, &[("a", 4), ("b", 4), ("c", 2)]),
        "p1 n1 6
         p2 n1 4",
        expect!["n1: p1 p2 p1"],
    );
    check(
        &request(Some("n1"), None, &[("a", 4), ("b", 3)]),
        "p1 n1 4.5
         p2 n1 2
         p3 n2 100",
        expect!["a: no node has pools for all 2 claims of the pod together (7Gi)"],
    );
}

#[test]
fn the_reason_names_what_is_missing() {
    check(
        &request(None, None, &[("a", 10)]),
        "p1 n1 7.25
         p2 n2 3",
        expect!["a: largest free pool 7.2Gi < 10Gi"],
    );
    check(
        &request(Some("n3"), None, &[("a", 10)]),
        "p1 n1 7",
        expect!["a: no pool here; make one with `berth-agent pools init`"],
    );
    check(
        &request(Some("n1"), None, &[("a", 1)]),
        "p1 n1 7 cordoned",
        expect!["a: pool p1 is not available: Cordoned"],
    );
    check(
        &request(Some("n1"), None, &[("a", 1)]),
        "p1 n1 7 lost
         p2 n1 7 cordoned",
        expect!["a: none of 2 pools is available: p1 LostMount, ..."],
    );
    let mut image = request(Some("n1"), None, &[("a", 1)]);
    image.wants[0].backend = Some(Backend::Image);
    check(
        &image,
        "p1 n1 7",
        expect!["a: no pool can carry backend image"],
    );
    image.wants[0].backend = None;
    image.wants[0].mode = VolumeMode::Block;
    check(
        &image,
        "p1 n1 7",
        expect!["a: no pool can carry a block device"],
    );
    check(&image, "p1 n1 7 image", expect!["n1: p1"]);
}

#[test]
fn without_a_scheduler_the_best_node_is_chosen() {
    // Fewest of the set, then most room.
    let pools = "p1 n1 9 web:0
                 p2 n2 3
                 p3 n3 4
                 p4 n3 4";
    check(
        &request(None, Some(("web", 1)), &[("data-web-1", 1)]),
        pools,
        expect!["n3: p3"],
    );
    let mut limited = request(None, Some(("web", 1)), &[("data-web-1", 1)]);
    limited.nodes = Some(["n1".to_owned(), "n2".to_owned()].into());
    check(&limited, pools, expect!["n2: p2"]);
}

#[test]
fn a_refusal_lowers_the_ceiling() {
    let mut all = rooms("p1 n1 9");
    all.get_mut("p1").expect("p1").ceiling = Some(2 * GI - 1);
    let asked = request(Some("n1"), None, &[("a", 2)]);
    assert_eq!(
        place(&asked, &all),
        Placement::NoRoom {
            claim: "a".to_owned(),
            text: "largest free pool 1.9Gi < 2Gi".to_owned()
        }
    );
    let asked = request(Some("n1"), None, &[("a", 1)]);
    assert!(matches!(place(&asked, &all), Placement::Placed { .. }));
}

#[test]
fn a_copy_goes_to_its_sources_pool_or_nowhere() {
    let pools = "p1 n1 5
         p2 n1 6
         p3 n2 9";
    let mut copy = request(Some("n1"), None, &[("a", 1)]);
    copy.wants[0].source = Some("p1".to_owned());
    check(&copy, pools, expect!["n1: p1"]);
    copy.wants[0].size = 8 * GI;
    check(&copy, pools, expect!["a: largest free pool 5Gi < 8Gi"]);
    copy.wants[0].source = Some("p3".to_owned());
    check(
        &copy,
        pools,
        expect!["a: its source is in pool p3, on another node"],
    );
}
