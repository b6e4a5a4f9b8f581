//! What each actor does in turn, for the situations that have no end where the protocol
//! is not thought through.

use expect_test::{Expect, expect};

use super::world::World;

/// Runs the world until nothing happens any more, and shows what happened and what is
/// waited for.
fn check(text: &str, expected: Expect) -> World {
    let mut world = World::new(text);
    run(&mut world);
    show(&world, &expected);
    world
}

fn run(world: &mut World) {
    for turn in 0..40 {
        world.round(turn);
        world.check();
    }
}

fn show(world: &World, expected: &Expect) {
    let mut shown = world.log.clone();
    for (pod, model) in &world.pods {
        let state = if model.runs { "runs" } else { "does not run" };
        shown.push(format!("pod {pod} {state}"));
    }
    for (claim, wait) in &world.waits {
        shown.push(format!("{claim} waits ({:?}): {wait}", wait.kind));
    }
    expected.assert_eq(&shown.join("\n"));
}

#[test]
fn two_claims_of_a_pod() {
    check(
        "pool p1 n1 10
         pool p2 n2 20
         claim a 6
         claim b 6
         pod x a,b",
        expect![[r#"
            scheduler: a to n1
            scheduler: b to n1
            controller: a to any other node
            controller: b to any other node
            scheduler: a to n1
            scheduler: b to n1
            controller: berth on n1 has 6Gi
            controller: b to any other node
            controller: a to any other node
            scheduler: a to n2
            scheduler: b to n2
            controller: a in p2
            controller: b in p2
            agent: a is Ready
            agent: b is Ready
            controller: a gets its PV
            controller: b gets its PV
            scheduler: pod x runs on n2
            pod x runs"#]],
    );
}

#[test]
fn two_claims_that_fit_alone_and_not_together() {
    check(
        "pool p1 n1 10
         pool p2 n2 20
         claim a 6
         claim b 6
         pod x a,b prefers=n1",
        expect![[r#"
            scheduler: a to n1
            scheduler: b to n1
            controller: a to any other node
            controller: b to any other node
            scheduler: a to n1
            scheduler: b to n1
            controller: berth on n1 has 6Gi
            controller: b to any other node
            controller: a to any other node
            scheduler: a to n2
            scheduler: b to n2
            controller: a in p2
            controller: b in p2
            agent: a is Ready
            agent: b is Ready
            controller: a gets its PV
            controller: b gets its PV
            scheduler: pod x runs on n2
            pod x runs"#]],
    );
}

#[test]
fn two_claims_that_fit_together_on_the_last_of_three_nodes() {
    let mut world = World::new(
        "pool p1 n1 10
         pool p2 n2 10
         pool p3 n3 20
         claim a 6
         claim b 6
         pod x a,b",
    );
    for turn in 0..200 {
        world.round(turn);
    }
    assert!(world.pods["x"].runs, "{:#?}", world.log);
}

#[test]
fn two_claims_that_fit_together_nowhere() {
    check(
        "pool p1 n1 10
         pool p2 n2 9
         claim a 6
         claim b 6
         pod x a,b prefers=n1",
        expect![[r#"
            scheduler: a to n1
            scheduler: b to n1
            controller: a to any other node
            controller: b to any other node
            scheduler: a to n1
            scheduler: b to n1
            controller: berth on n1 has 6Gi
            controller: b to any other node
            controller: a to any other node
            scheduler: a to n2
            scheduler: b to n2
            controller: a to any other node
            controller: b to any other node
            scheduler: a to n2
            scheduler: b to n2
            controller: berth on n2 has 6Gi
            controller: a to any other node
            controller: b to any other node
            scheduler: a to n1
            scheduler: b to n1
            controller: berth on n1 has 6Gi
            controller: b to any other node
            controller: a to any other node
            pod x does not run
            a waits (NoRoom): no node has pools for all 2 claims of the pod together (12Gi)
            b waits (NoRoom): no node has pools for all 2 claims of the pod together (12Gi)"#]],
    );
}

#[test]
fn a_claim_that_binds_at_once_goes_first_and_leaves_room_for_the_other() {
    check(
        "pool p1 n1 10
         pool p2 n2 8
         pool p3 n2 5
         claim a 5 now
         claim b 8
         pod x a,b",
        expect![[r#"
            controller: a in p3
            agent: a is Ready
            controller: a gets its PV
            scheduler: b to n2
            controller: b in p2
            agent: b is Ready
            controller: b gets its PV
            scheduler: pod x runs on n2
            pod x runs"#]],
    );
}

#[test]
fn a_neighbour_that_fits_no_node() {
    check(
        "pool p1 n1 10
         claim shared 1
         claim extra 1
         pod a-nowhere shared,extra on=n9
         pod good shared",
        expect![[r#"
            scheduler: shared to n1
            controller: shared in p1
            agent: shared is Ready
            controller: shared gets its PV
            scheduler: pod good runs on n1
            pod a-nowhere does not run
            pod good runs"#]],
    );
}

#[test]
fn a_neighbour_whose_other_claim_is_refused() {
    check(
        "pool p1 n1 10
         claim shared 1
         claim extra 1 berth many
         pod a-many shared,extra
         pod good shared",
        expect![[r#"
            scheduler: shared to n1
            scheduler: extra to n1
            controller: shared in p1
            agent: shared is Ready
            controller: shared gets its PV
            scheduler: pod good runs on n1
            pod a-many does not run
            pod good runs
            extra waits (NeedsAction): access mode ReadWriteMany is not possible: the volume is a disk of one node; use ReadWriteOnce or ReadWriteOncePod"#]],
    );
}

#[test]
fn a_pod_with_a_refused_claim_alone() {
    check(
        "pool p1 n1 10
         claim a 1
         claim b 1 berth many
         pod x a,b",
        expect![[r#"
            scheduler: a to n1
            scheduler: b to n1
            pod x does not run
            a waits (NeedsAction): the pod's other claim b is refused: access mode ReadWriteMany is not possible: the volume is a disk of one node; use ReadWriteOnce or ReadWriteOncePod
            b waits (NeedsAction): access mode ReadWriteMany is not possible: the volume is a disk of one node; use ReadWriteOnce or ReadWriteOncePod"#]],
    );
}

#[test]
fn a_pod_that_names_its_node() {
    check(
        "pool p1 n1 10
         pool p2 n2 20
         claim a 6
         claim b 4 now
         pod x a,b node=n1",
        expect![[r#"
            controller: a to n1
            controller: b in p1
            agent: b is Ready
            controller: a in p1
            controller: b gets its PV
            agent: a is Ready
            controller: a gets its PV
            pod x runs"#]],
    );
    check(
        "pool p1 n1 10
         pool p2 n2 20
         claim a 12
         pod x a node=n1",
        expect![[r#"
            pod x does not run
            a waits (NoRoom): largest free pool 10Gi < 12Gi; pod x names node n1 in spec.nodeName: free some room there, or remove spec.nodeName, so that the scheduler chooses a node"#]],
    );
    check(
        "pool p1 n1 10
         claim a 1
         pod x a node=n9",
        expect![[r#"
            pod x does not run
            a waits (NeedsAction): pod x names node n9 in spec.nodeName, and there is no such node; correct it, or remove it, so that the scheduler chooses one"#]],
    );
}

#[test]
fn a_scheduler_that_crashed_between_two_claims() {
    let mut world = World::new(
        "pool p1 n1 20
         pool p2 n2 5
         claim a 4
         claim b 8
         pod x a,b prefers=n2",
    );
    // n2 was told to have room for both, and the scheduler wrote only the first.
    world.select("a", "n2");
    run(&mut world);
    show(
        &world,
        &expect![[r#"
        scheduler: a to n2
        controller: a to any other node
        scheduler: a to n1
        scheduler: b to n1
        controller: a in p1
        controller: b in p1
        agent: a is Ready
        agent: b is Ready
        controller: a gets its PV
        controller: b gets its PV
        scheduler: pod x runs on n1
        pod x runs"#]],
    );
}

#[test]
fn a_class_that_is_not_there() {
    check(
        "pool p1 n1 10
         claim a 1 berht
         claim b 1
         pod x a,b",
        expect![[r#"
            pod x does not run
            a waits (NeedsAction): class of a is missing; make it
            b waits (NeedsAction): the pod's other claim a is refused: class of a is missing; make it"#]],
    );
}

#[test]
fn a_pool_that_fails_is_left_for_another() {
    let mut world = World::new(
        "pool p1 n1 20
         pool p2 n2 10
         claim a 1 now",
    );
    world.pools.get_mut("p1").expect("p1").broken = true;
    run(&mut world);
    run(&mut world);
    show(
        &world,
        &expect![[r#"
            controller: a in p1
            agent: a is Failed
            controller: a leaves p1
            agent: a is Deleted
            controller: a has no volume
            controller: a in p2
            agent: a is Ready
            controller: a gets its PV"#]],
    );
}
