//! `explain pvc/<name>`: the same planner on live state, without doing anything.

use std::fmt::Write as _;

use anyhow::Context as _;
use berth_api::{Bytes, names};
use berth_plan::{
    place::{self, Placement, carries},
    volumes::claim,
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, runtime::watcher::Event};
use serde::de::DeserializeOwned;

use super::{pod, snapshots, state::ClusterState, update::Update};

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
    list(&mut state, Api::all(all()), Update::Node).await?;
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
    let (decision, _) = state.decide(&volume);
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
    if let Some(error) = state.class_error(claim) {
        let _ = writeln!(out, "refused {error}");
    }
    let Some(class) = state.class_of(claim) else {
        let _ = writeln!(out, "the class is not Berth's, or not valid: left alone");
        return out;
    };
    if claim::volume_name(claim).is_some() {
        return out;
    }
    let node = claim::selected_node(claim).filter(|_| !class.immediate);
    let group = match state.group(claim, class, node) {
        Ok(group) => group,
        Err(wait) => {
            let _ = writeln!(out, "waits   {wait}");
            return out;
        }
    };
    let members: Vec<_> = group.members.iter().map(|m| m.name_any()).collect();
    let _ = writeln!(out, "placed together: {}", members.join(", "));
    let set = group.request.set.as_ref();
    let mode = claim::mode(claim);
    for (id, room) in &state.rooms {
        let others = room.others(set, group.request.ordinal);
        let able = if carries(room, class.backend, mode) {
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
    let _ = match place::place(&group.request, &state.rooms) {
        Placement::Placed { node, pools } => {
            writeln!(out, "answer  {node}: {}", pools.join(", "))
        }
        Placement::NoRoom { claim, text } => writeln!(out, "answer  no room for {claim}: {text}"),
    };
    out
}
