//! Decisions about pools and claims in a cluster of many nodes.

use std::{collections::BTreeMap, hint::black_box};

use berth_api::{Pool, Volume, VolumeMode};
use berth_plan::{
    grants::{self, grant},
    node::Node,
    place::{Placement, Request, Want, place},
    room::rooms,
};
use serde_json::{from_value, json};

use super::{median, ms};

const NODES: usize = 1000;
const POOLS: usize = 4;
const VOLUMES: usize = 25;

/// Prints them for 1,000 nodes of four pools with 25 volumes each.
pub(super) fn run() {
    let view = view();
    let granting = median(|| {
        black_box(grant(&view));
    });
    let grants = grant(&view);
    let volumes: Vec<Volume> = (0..NODES * POOLS * VOLUMES).map(volume).collect();
    let none = BTreeMap::new();
    let all = median(|| {
        black_box(rooms(&grants, &volumes, &none));
    });
    let free = rooms(&grants, &volumes, &none);
    let one: BTreeMap<_, _> = grants.clone().into_iter().take(1).collect();
    let its: Vec<&Volume> = volumes.iter().take(VOLUMES).collect();
    let changed = median(|| {
        black_box(rooms(&one, its.iter().copied(), &none));
    });
    let request = |node: Option<&str>| Request {
        node: node.map(str::to_owned),
        nodes: None,
        set: None,
        ordinal: None,
        wants: vec![Want {
            claim: "data".to_owned(),
            size: 1 << 30,
            backend: None,
            mode: VolumeMode::Filesystem,
            source: None,
            avoid: Default::default(),
        }],
    };
    assert!(matches!(
        place(&request(None), &free),
        Placement::Placed { .. }
    ));
    let anywhere = median(|| {
        black_box(place(&request(None), &free));
    });
    let there = median(|| {
        black_box(place(&request(Some("node-7")), &free));
    });
    println!(
        "  {NODES} nodes, {} volumes: grants {}, room of all pools {}, of one that changed {}, a claim placed on its node {}, on any {}",
        volumes.len(),
        ms(granting),
        ms(all),
        ms(changed),
        ms(there),
        ms(anywhere)
    );
}

fn pool_id(n: usize) -> String {
    format!("disk{}-{n:012x}", n % POOLS)
}

fn view() -> grants::View {
    let mut view = grants::View::default();
    for n in 0..NODES {
        let name = format!("node-{n}");
        let pools = (0..POOLS).map(|p| {
            let id = pool_id(n * POOLS + p);
            json!({
                "id": id, "path": format!("/var/lib/berth/pools/disk{p}"), "health": "Healthy",
                "filesystem": "btrfs", "backends": ["image", "btrfs"],
                "capacity": "1Ti", "reserved": "25Gi", "free": "900Gi", "volumes": VOLUMES,
            })
        });
        let status = json!({"pools": pools.collect::<Vec<_>>()});
        view.reports
            .insert(name.clone(), from_value(status).expect("a report"));
        for p in 0..POOLS {
            let id = pool_id(n * POOLS + p);
            let mut pool = Pool::new(&id, Default::default());
            let status = json!({"node": name, "epoch": 1});
            pool.status = Some(from_value(status).expect("a status"));
            view.pools.insert(id, pool);
        }
        view.nodes.insert(name, Node::default());
    }
    view
}

fn volume(n: usize) -> Volume {
    let pool = n / VOLUMES;
    from_value(json!({
        "metadata": {"name": format!("pvc-{n}")},
        "spec": {
            "pool": pool_id(pool), "node": format!("node-{}", pool / POOLS), "size": "1Gi",
            "claim": {"namespace": "ns", "name": format!("data-web-{n}"), "uid": n.to_string()},
            "owner": {"kind": "OrdinalSet", "name": format!("web-{}", n / 3), "ordinal": n % 3},
        },
        "status": {"phase": "Ready", "size": "1Gi"},
    }))
    .expect("a Volume")
}
