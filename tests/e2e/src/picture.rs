//! A picture of nodes, their pools and what lies in them, for a terminal.

use std::collections::BTreeMap;

use anyhow::Result;
use berth_api::{Pool, Volume};
use kube::{Api, api::ListParams};

use crate::ctx::Ctx;

/// Node -> pool (with its room) -> what lies in it.
pub type Map = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Reads the map from the cluster.
pub async fn read(ctx: &Ctx) -> Result<Map> {
    let pools: Api<Pool> = Api::all(ctx.client.clone());
    let mut map = Map::new();
    let mut titles = BTreeMap::new();
    for pool in pools.list(&ListParams::default()).await?.items {
        let id = pool.metadata.name.unwrap_or_default();
        let status = pool.status.unwrap_or_default();
        let room = status.capacity.unwrap_or_default().0 - status.reserved.unwrap_or_default().0;
        let title = format!("{id} ({} free)", berth_api::Bytes(room).human());
        titles.insert(id, title.clone());
        map.entry(status.node.unwrap_or_else(|| "nowhere".into()))
            .or_default()
            .insert(title, Vec::new());
    }
    for volume in ctx.volumes().list(&ListParams::default()).await?.items {
        let Some(title) = titles.get(&volume.spec.pool) else {
            continue;
        };
        if let Some(list) = map
            .get_mut(&volume.spec.node)
            .and_then(|pools| pools.get_mut(title))
        {
            list.push(label(&volume));
        }
    }
    Ok(map)
}

fn label(volume: &Volume) -> String {
    format!("{} {}", volume.spec.claim.name, volume.spec.size)
}

/// Draws the map.
pub fn draw(map: &Map) -> String {
    let widest = map
        .values()
        .flatten()
        .flat_map(|(pool, volumes)| volumes.iter().map(|v| v.len() + 4).chain([pool.len() + 2]))
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (node, pools) in map {
        out += &format!(
            "┌─ {node} {}┐\n",
            "─".repeat((widest + 1).saturating_sub(node.len() + 2))
        );
        for (pool, volumes) in pools {
            out += &format!("│ {pool:widest$} │\n");
            for volume in volumes {
                let line = format!("  ■ {volume}");
                out += &format!("│ {line:widest$} │\n");
            }
        }
        out += &format!("└{}┘\n", "─".repeat(widest + 2));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_closed() {
        let map = Map::from([
            (
                "worker".into(),
                BTreeMap::from([("disk0-1 (9Gi free)".into(), vec!["data-web-0 1Mi".into()])]),
            ),
            (
                "worker2".into(),
                BTreeMap::from([("disk0-2 (8Gi free)".into(), vec![])]),
            ),
        ]);
        let drawn = draw(&map);
        assert_eq!(
            drawn,
            "┌─ worker ─────────────┐\n\
             │ disk0-1 (9Gi free)   │\n\
             │   ■ data-web-0 1Mi   │\n\
             └──────────────────────┘\n\
             ┌─ worker2 ────────────┐\n\
             │ disk0-2 (8Gi free)   │\n\
             └──────────────────────┘\n"
        );
    }
}
