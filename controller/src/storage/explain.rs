//! `explain pvc/<name>`: the same planner on live state, without doing anything.

use std::fmt::Write as _;

use anyhow::Context as _;
use berth_api::{Bytes, names};
use berth_plan::{
    claims,
    place::{self, Placement, carries},
    volumes::claim,
};
use jiff::Timestamp;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, runtime::watcher::Event};
use serde::de::DeserializeOwned;

use super::{node, pod, snapshots, state::ClusterState, update::Update};

async fn list<K>(
    state: &mut ClusterState,
    api: Api<K>,
    wrap: impl Fn(Event<K>) -> Update,
) -> anyhow::Result<()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = api.list(&ListParams::default()).await?;
    state.take(wrap(Event::Init));
    for object in list.items {
        state.take(wrap(Event::InitApply(object)));
    }
    state.take(wrap(Event::InitDone));
    Ok(())
}

/// The decision about a claim as it would be made now, with its reasons, as text.
///
/// # Errors
/// The claim, or what the decision depends on, cannot be read.
pub async fn explain(client: Client, namespace: &str, name: &str) -> anyhow::Result<String> {
    let mut state = ClusterState::default();
    let all = || client.clone();
    list(&mut state, node::api(all()), Update::Node).await?;
    list(&mut state, Api::all(all()), Update::Class).await?;
    list(&mut state, Api::all(all()), Update::Pool).await?;
    list(&mut state, Api::all(all()), Update::Report).await?;
    list(&mut state, Api::all(all()), Update::Volume).await?;
    list(&mut state, Api::all(all()), Update::Pv).await?;
    list(&mut state, Api::all(all()), Update::Claim).await?;
    list(&mut state, pod::api(all()), Update::Pod).await?;
    list(&mut state, Api::all(all()), Update::Snapshot).await?;
    if snapshots::watch::is_served(&client).await? {
        list(&mut state, Api::all(all()), Update::Content).await?;
        list(&mut state, Api::all(all()), Update::Request).await?;
        list(&mut state, Api::all(all()), Update::SnapshotClass).await?;
    } else {
        let none = snapshots::watch::nothing().into_iter();
        none.for_each(|update| state.take(update));
    }
    state.refresh();
    let claim = state
        .claims
        .get(namespace, name)
        .cloned()
        .with_context(|| format!("there is no claim {name} in namespace {namespace}"))?;
    Ok(told(&state, &claim))
}

fn told(
    state: &ClusterState,
    claim: &std::sync::Arc<k8s_openapi::api::core::v1::PersistentVolumeClaim>,
) -> String {
    let mut out = String::new();
    let volume = names::volume_name(claim::uid(claim));
    let now = Timestamp::now();
    let (decision, _) = state.decide(&volume, now);
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "claim   {}/{} wants {}, class {}",
        claim.namespace().unwrap_or_default(),
        claim.name_any(),
        claim::size(claim).map_or("nothing".to_owned(), |s| Bytes(s).human()),
        claim::class_name(claim).unwrap_or("none"),
    );
    let _ = writeln!(out, "volume  {volume}");
    let _ = writeln!(
        out,
        "node    {}",
        claim::selected_node(claim).unwrap_or("not chosen by the scheduler yet")
    );
    let _ = writeln!(out, "next    {:?}", decision.step);
    if let Some(wait) = decision.wait {
        let _ = writeln!(out, "waits   {wait}");
    }
    let view = state.claim_view(claim, now, |_| false);
    let plan = claims::decide(&view);
    for why in plan.waits.values().flatten() {
        let _ = writeln!(out, "waits   {why}");
    }
    let Some(together) = plan.together else {
        return out;
    };
    let members: Vec<_> = together.wants.iter().map(|want| &*want.claim).collect();
    let _ = writeln!(out, "placed together: {}", members.join(", "));
    let (set, mode) = (together.set.as_ref(), claim::mode(claim));
    let backend = state.class_of(claim).and_then(|class| class.backend);
    for (id, room) in &state.rooms {
        let others = room.others(set, together.ordinal);
        let able = if carries(room, backend, mode) {
            ""
        } else {
            ", cannot carry it"
        };
        let _ = writeln!(
            out,
            "pool    {id} on {}: {}, {} free of {}, {others} other ordinals of the set{able}",
            room.node,
            room.standing.reason(),
            Bytes(room.free()).human(),
            Bytes(room.capacity).human(),
        );
    }
    let _ = match place::place(&together, &state.rooms) {
        Placement::Placed { node, pools } => {
            writeln!(out, "answer  {node}: {}", pools.join(", "))
        }
        Placement::NoRoom { claim, text } => writeln!(out, "answer  no room for {claim}: {text}"),
    };
    out
}
