//! What people are told about pools: conditions and events.

use super::*;

#[test]
fn volumes_without_an_object_are_told_with_what_to_do() {
    let mut all = view(
        "node n1 p1
         pool p1 on=n1 epoch=1
         report n1 p1",
    );
    apply(&mut all);
    let report = all.reports.get_mut("n1").expect("there");
    report.pools[0].orphans = vec![berth_api::Orphan {
        id: "pvc-1".to_owned(),
        claim: None,
        size: Bytes(1 << 30),
    }];
    let old = all.pools["p1"].status.clone().expect("there");
    apply(&mut all);
    let new = all.pools["p1"].status.clone().expect("there");
    let texts: Vec<_> = notices(&old, &new)
        .into_iter()
        .map(|it| (it.warning, it.reason, it.text))
        .collect();
    expect![[r#"
        [
            (
                true,
                "Orphans",
                "no Volume object names pvc-1 (no claim, 1Gi): the data stays and keeps its space; make its PersistentVolume again to use it, or a Volume with state Deleted to erase it",
            ),
        ]
    "#]].assert_debug_eq(&texts);
    assert!(!apply(&mut all), "it is told once");
}

#[test]
fn trouble_is_named() {
    check(
        "node n1 lost,gone,ro,cord,dead,foreign
         pool lost on=n1 epoch=1
         pool gone on=n1 epoch=1
         pool ro on=n1 epoch=1
         pool cord on=n1 epoch=1 cordoned
         pool dead on=n1 epoch=1 lost
         report n1 lost LostMount
         report n1 ro ReadOnly
         report n1 cord
         report n1 dead",
        expect![[r#"
            cord n1 1 Cordoned: on n1; cordoned: no new volumes are placed here
            dead n1 1 DeclaredLost: declared lost: claims on it can be deleted without erasing their data
            gone n1 1 Missing: no node reports it (last on n1); bring the disk or its node back, or set spec.lost
            lost n1 1 LostMount: /pools/0 on n1 is not the disk that it was; mount it again
            ro n1 1 Unhealthy: ReadOnly on n1
            status cord True Now
            status dead False Now
            status gone False Now
            status lost False Now
            status ro False Now
            labels n1 +{} -{"pool.berth.dev/dead", "pool.berth.dev/foreign", "pool.berth.dev/gone", "pool.berth.dev/lost"}
        "#]],
    );
}

#[test]
fn figures_wait_and_count_what_is_reported() {
    let mut all = view(
        "node n1
         report n1 p1",
    );
    while apply(&mut all) {}
    let report = all.reports.get_mut("n1").expect("there");
    (report.pools[0].reserved, report.pools[0].volumes) = (Bytes(50), 2);
    expect![[r"
        p1 n1 1 Granted: on n1
        status p1 True Later
    "]]
    .assert_eq(&show(&all));
    assert!(apply(&mut all));
    let status = all.pools["p1"].status.clone().expect("written");
    assert_eq!((status.reserved, status.volumes), (Some(Bytes(50)), 2));
    // A capacity is no figure that moves by itself: the disk was grown.
    all.reports.get_mut("n1").expect("there").pools[0].capacity = Bytes(200);
    expect![[r"
        p1 n1 1 Granted: on n1
        status p1 True Now
    "]]
    .assert_eq(&show(&all));
}

#[test]
fn what_changes_about_a_pool_is_told_once() {
    let mut all = view(
        "node n1
         report n1 p1",
    );
    let told = |all: &mut View| {
        let before = all.pools.get("p1").and_then(|pool| pool.status.clone());
        apply(all);
        let after = all.pools["p1"].status.clone().unwrap_or_default();
        notices(&before.unwrap_or_default(), &after)
            .into_iter()
            .map(|it| {
                let mark = if it.warning { "!" } else { "" };
                format!("{mark}{} {}", it.reason, it.text)
            })
            .collect::<Vec<_>>()
    };
    fn report(all: &mut View) -> &mut NodePool {
        &mut all.reports.get_mut("n1").expect("there").pools[0]
    }
    apply(&mut all);
    let nothing = Vec::<String>::new();
    assert_eq!(
        told(&mut all),
        nothing,
        "a pool that is well from the start"
    );
    let trouble = |kind, message: &str| Problem {
        kind,
        message: message.to_owned(),
    };
    report(&mut all).troubles = vec![
        trouble(ProblemKind::IoErrors, "look at the disk"),
        trouble(ProblemKind::Full, "add a pool"),
    ];
    assert_eq!(
        told(&mut all),
        ["!IoErrors look at the disk", "Full add a pool"]
    );
    assert_eq!(told(&mut all), nothing);
    report(&mut all).health = PoolHealth::ReadOnly;
    report(&mut all).message = Some("mount it writable".to_owned());
    assert_eq!(told(&mut all), ["!Unhealthy mount it writable"]);
    all.reports.clear();
    assert_eq!(
        told(&mut all),
        [
            "!Missing no node reports it (last on n1); bring the disk or its node back, or set spec.lost"
        ]
    );
}

/// A disk that stops answering keeps what it has, since it may answer in a moment: its
/// grant, its node and its label. It gets nothing new, and people are told.
#[test]
fn a_silent_disk_keeps_its_place_and_gets_nothing_new() {
    let mut all = view(
        "node n1
         node n2
         report n1 p1",
    );
    while apply(&mut all) {}
    let before = all.pools["p1"].status.clone().unwrap_or_default();
    let silent = &mut all.reports.get_mut("n1").expect("there").pools[0];
    silent.health = PoolHealth::Unresponsive;
    silent.message = Some("the disk does not answer".to_owned());
    let copy = NodePool {
        health: PoolHealth::Healthy,
        ..silent.clone()
    };
    while apply(&mut all) {}
    let after = all.pools["p1"].status.clone().unwrap_or_default();
    assert_eq!((&after.node, after.epoch), (&before.node, before.epoch));
    assert_eq!(
        (after.capacity, after.reserved),
        (before.capacity, before.reserved)
    );
    let label = names::pool_label("p1");
    assert!(all.nodes["n1"].labels.contains_key(&label));
    let healthy = after.conditions.iter().find(|it| it.type_ == "Healthy");
    let healthy = healthy.expect("is told");
    assert_eq!(
        (&*healthy.status, &*healthy.reason),
        ("False", "Unresponsive")
    );
    let grants = grant(&all);
    let rooms = crate::room::rooms(&grants, [], &BTreeMap::new());
    assert_eq!(
        (rooms["p1"].free(), grants["p1"].standing.is_ready()),
        (0, false)
    );
    let told = notices(&before, &after);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].warning && told[0].text == "the disk does not answer");
    // Nor does another node get it that reports the same pool meanwhile.
    let other = all.reports.entry("n2".to_owned()).or_default();
    other.pools.push(copy);
    assert_eq!(grant(&all)["p1"].node.as_deref(), Some("n1"));

    all.reports.remove("n2");
    all.reports.get_mut("n1").expect("there").pools[0].health = PoolHealth::Healthy;
    while apply(&mut all) {}
    let well = all.pools["p1"].status.clone().unwrap_or_default();
    assert!(notices(&after, &well).iter().all(|it| !it.warning));
    assert_eq!(well.epoch, before.epoch);
}

#[test]
fn a_pool_that_is_reported_twice_is_told_of() {
    let mut all = view(
        "node n1
         node n2
         report n1 p1",
    );
    while apply(&mut all) {}
    let before = all.pools["p1"].status.clone().unwrap_or_default();
    let copy = all.reports["n1"].pools[0].clone();
    let other = all.reports.entry("n2".to_owned()).or_default();
    other.pools.push(copy);
    apply(&mut all);
    let after = all.pools["p1"].status.clone().unwrap_or_default();
    let told = notices(&before, &after);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].warning);
    expect!["Conflict reported by n2:/pools/0 too, which is refused: unmount the copy there, or, if the disk moved and n1 is gone, delete Node n1"]
        .assert_eq(&format!("{} {}", told[0].reason, told[0].text));
    all.reports.remove("n2");
    apply(&mut all);
    let well = all.pools["p1"].status.clone().unwrap_or_default();
    let told = notices(&after, &well);
    assert!(told.len() == 1 && !told[0].warning, "{told:?}");
}
