//! One disk stops answering, and only what needs that disk waits for it.

use super::*;

const LOOKS: Duration = Duration::from_secs(60);

/// Two pools, the first of which can be made to hang.
fn two() -> (Node, std::sync::Arc<Provisioner>, PoolId, PoolId) {
    let node = Node::new();
    node.disk("disk1", "other", 1024 * MIB);
    let (p, hung) = node.start();
    let well = p.init_pool("disk1", &InitOptions::default()).unwrap();
    (node, std::sync::Arc::new(p), hung, well.id.unwrap())
}

fn health(p: &Provisioner) -> Vec<Health> {
    p.pools().into_iter().map(|pool| pool.health).collect()
}

/// Asks the disks until the pools are as expected.
fn until(p: &Provisioner, expected: &[Health]) {
    let end = std::time::Instant::now() + LOOKS;
    while health(p) != expected {
        assert!(std::time::Instant::now() < end, "{:?}", p.pools());
        p.ask().unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn until_hanging(node: &Node, calls: u32) {
    let end = std::time::Instant::now() + LOOKS;
    while node.fake.hanging() < calls {
        assert!(std::time::Instant::now() < end, "nothing hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn create_publish_delete(node: &Node, p: &Provisioner, pool: &PoolId, id: &str) {
    p.create(pool, &want(id)).unwrap();
    let publish = node.publish(id, "p2");
    p.publish(&publish).unwrap();
    assert_eq!(p.find(id).unwrap().published.len(), 1);
    p.unpublish(id, &publish.target).unwrap();
    p.delete(id).unwrap();
}

#[test]
fn of_one_disk_is_that_disks_alone() {
    let (node, p, hung, well) = two();
    p.create(&hung, &want("before")).unwrap();
    let hang = node.pool("disk0");
    node.fake.hang(&hang);
    // One operation and one look are caught in it.
    let caught = {
        let (p, hung) = (p.clone(), hung.clone());
        std::thread::spawn(move || p.create(&hung, &want("caught")).map(drop))
    };
    p.ask().unwrap();
    until_hanging(&node, 2);
    create_publish_delete(&node, &p, &well, "meanwhile");
    assert_eq!(p.look_at(&well).unwrap().health, Health::Healthy);

    // It is told, with the figures of before, and answered for without its disk.
    until(&p, &[Health::Unresponsive, Health::Healthy]);
    let told = p.look_at(&hung).unwrap();
    assert_eq!(
        (told.id, told.volumes, told.room),
        (Some(hung.clone()), 1, 0)
    );
    assert!(told.reserved >= 32 * MIB);
    let refused = p.create(&hung, &want("refused")).unwrap_err();
    assert!(matches!(refused, Error::Unresponsive { .. }), "{refused}");
    for refused in [
        p.delete("before").unwrap_err(),
        p.stats("before").unwrap_err(),
        p.publish(&node.publish("before", "p1")).unwrap_err(),
    ] {
        assert!(matches!(refused, Error::Unresponsive { .. }), "{refused}");
    }
    let before = p.find("before").unwrap();
    assert!(matches!(before.health, VolumeHealth::Lost(_)), "{before:?}");
    assert_eq!(p.list().len(), 1, "nobody waits for the disk");
    assert_eq!(p.rescan().unwrap().len(), 2);
    assert_eq!(node.fake.hanging(), 2, "no more threads than at first");
    create_publish_delete(&node, &p, &well, "again");

    // Nothing is lost, and nothing is left.
    node.fake.answer(&hang);
    until(&p, &[Health::Healthy, Health::Healthy]);
    caught.join().unwrap().unwrap();
    assert_eq!(node.names("volumes"), ["before", "caught"]);
    assert!(node.names(".berth/new").is_empty());
    p.publish(&node.publish("caught", "p1")).unwrap();
    node.fake.free_all();
    assert!(p.settle(PATIENCE));
    assert_eq!(p.rescan().unwrap()[0].reserved, 64 * MIB);
}

#[test]
fn from_the_start_delays_no_other_pool_and_proves_nothing() {
    let (node, p, hung, well) = two();
    p.create(&hung, &want("v")).unwrap();
    drop(p);
    let hang = node.pool("disk0");
    node.fake.hang(&hang);
    let p = Provisioner::start_with(node.config.clone(), Box::new(node.fake.clone())).unwrap();
    let end = std::time::Instant::now() + LOOKS;
    while p
        .look_at(&well)
        .is_none_or(|pool| pool.health != Health::Healthy)
    {
        assert!(std::time::Instant::now() < end, "{:?}", p.pools());
    }
    create_publish_delete(&node, &p, &well, "w");
    // The volume may lie in the pool that was not read.
    assert!(p.find("v").is_none());
    for refused in [
        p.delete("v").unwrap_err(),
        p.require_all_read("v").unwrap_err(),
        p.create(&hung, &want("v")).unwrap_err(),
        p.stats("v").unwrap_err(),
    ] {
        assert!(matches!(refused, Error::NotOpenYet { .. }), "{refused}");
    }
    node.fake.answer(&hang);
    until(&p, &[Health::Healthy, Health::Healthy]);
    p.require_all_read("x").unwrap();
    assert_eq!(p.find("v").unwrap().health, VolumeHealth::Ready);
}

#[test]
fn keeps_the_next_agent_from_that_pool_only() {
    let (node, p, hung, well) = two();
    let hang = node.pool("disk0");
    node.fake.hang(&hang);
    let caught = {
        let (p, hung) = (p.clone(), hung.clone());
        std::thread::spawn(move || p.create(&hung, &want("caught")).map(drop))
    };
    p.ask().unwrap();
    until_hanging(&node, 2);
    // The thread holds the provisioner, so it is not dropped.
    p.close(Duration::ZERO);
    assert!(matches!(p.create(&well, &want("x")), Err(Error::Stopping)));

    let next = node.open();
    until(&next, &[Health::Unresponsive, Health::Healthy]);
    create_publish_delete(&node, &next, &well, "meanwhile");
    node.fake.answer(&hang);
    // What was caught is over before the next agent reads the pool.
    let done = caught.join().unwrap();
    until(&next, &[Health::Healthy, Health::Healthy]);
    assert_eq!(next.find("caught").is_some(), done.is_ok());
    assert!(node.names(".berth/new").is_empty());
    next.create(&hung, &want("caught")).unwrap();
}
