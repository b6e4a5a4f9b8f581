//! The watches that feed the loop.

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{capacity::DRIVER_LABEL, pod, snapshots, update::Update};
use crate::context::Ctx;

/// Seconds after which the server ends a watch; a dead link is noticed then.
const WATCH_SECONDS: u32 = 60;

/// Every watch, as one stream. A watch that fails starts again by itself.
pub(super) fn all(ctx: &Ctx) -> BoxStream<'static, Update> {
    let client = || ctx.client.clone();
    let own = format!("{DRIVER_LABEL}={}", berth_api::DRIVER);
    let streams = vec![
        one(Api::all(client()), config(), Update::Claim),
        one(Api::all(client()), config(), Update::Pv),
        one(Api::all(client()), config(), Update::Class),
        one(Api::all(client()), config(), Update::Node),
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

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

fn one<K>(
    api: Api<K>,
    config: watcher::Config,
    wrap: impl Fn(Event<K>) -> Update + Send + 'static,
) -> BoxStream<'static, Update>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let kind = std::any::type_name::<K>();
    watcher(api, config)
        .default_backoff()
        .filter_map(move |event| {
            let update = match event {
                Ok(event) => Some(wrap(event.modify(|o| o.managed_fields_mut().clear()))),
                Err(error) => {
                    tracing::warn!(kind, %error, "watch failed; it starts again");
                    None
                }
            };
            std::future::ready(update)
        })
        .boxed()
}
