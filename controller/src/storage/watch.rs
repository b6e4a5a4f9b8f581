//! The watches that feed the loop.

use berth_kube::watch::{self, config};
use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;

use super::{capacity::DRIVER_LABEL, node, pod, snapshots, update::Update};
use crate::context::Ctx;

/// Every watch, as one stream. A watch that fails starts again by itself.
pub(super) fn all(ctx: &Ctx) -> BoxStream<'static, Update> {
    let client = || ctx.client.clone();
    let own = format!("{DRIVER_LABEL}={}", berth_api::DRIVER);
    let streams = vec![
        one(Api::all(client()), config(), Update::Claim),
        one(Api::all(client()), config(), Update::Pv),
        one(Api::all(client()), config(), Update::Class),
        one(node::api(client()), config(), Update::Node),
        one(Api::all(client()), config(), Update::Pool),
        one(Api::all(client()), config(), Update::Volume),
        one(Api::all(client()), config(), Update::Report),
        one(pod::api(client()), config(), Update::Pod),
        one(
            Api::namespaced(client(), &ctx.namespace),
            config().labels(&own),
            Update::Capacity,
        ),
        one(Api::all(client()), config(), Update::Snapshot),
        snapshots::watch::all(client(), config()),
    ];
    futures::stream::select_all(streams).boxed()
}

fn one<K>(
    api: Api<K>,
    config: watcher::Config,
    wrap: impl Fn(Event<K>) -> Update + Send + 'static,
) -> BoxStream<'static, Update>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watch::events(api, config)
        .map(move |event| wrap(event.modify(|object| object.managed_fields_mut().clear())))
        .boxed()
}
