//! The watches that feed the loop.

use berth_api::{NodeStorage, Pool, Volume};
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSIStorageCapacity, StorageClass},
};
use kube::{
    Api, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{
    slim::{self, SlimPod},
    snapshots,
};
use crate::context::Ctx;

/// Seconds after which the server ends a watch; a dead link is noticed then.
const WATCH_SECONDS: u32 = 60;

/// Label by which the capacity objects of a driver are found.
pub(super) const DRIVER_LABEL: &str = "csi.storage.k8s.io/drivername";

/// Something that a watch said.
#[expect(clippy::large_enum_variant, reason = "one at a time, taken in at once")]
pub(super) enum News {
    Claim(Event<PersistentVolumeClaim>),
    Pv(Event<PersistentVolume>),
    Class(Event<StorageClass>),
    Node(Event<PartialObjectMeta<Node>>),
    Pool(Event<Pool>),
    Volume(Event<Volume>),
    Report(Event<NodeStorage>),
    Pod(Event<SlimPod>),
    Capacity(Event<CSIStorageCapacity>),
    Snaps(snapshots::News),
}

/// Every watch, as one stream. A watch that fails starts again by itself.
pub(super) fn all(ctx: &Ctx) -> BoxStream<'static, News> {
    let client = || ctx.client.clone();
    let own = format!("{DRIVER_LABEL}={}", berth_api::DRIVER);
    let streams = vec![
        one(Api::all(client()), config(), News::Claim),
        one(Api::all(client()), config(), News::Pv),
        one(Api::all(client()), config(), News::Class),
        one(Api::all(client()), config(), News::Node),
        one(Api::all(client()), config(), News::Pool),
        one(Api::all(client()), config(), News::Volume),
        one(Api::all(client()), config(), News::Report),
        one(slim::api(client()), config(), News::Pod),
        one(
            Api::namespaced(client(), &ctx.namespace),
            config().labels(&own),
            News::Capacity,
        ),
        one(Api::all(client()), config(), |event| {
            News::Snaps(snapshots::News::Snapshot(event))
        }),
        snapshots::watch::all(client()).map(News::Snaps).boxed(),
    ];
    futures::stream::select_all(streams).boxed()
}

pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

fn one<K>(
    api: Api<K>,
    config: watcher::Config,
    wrap: impl Fn(Event<K>) -> News + Send + 'static,
) -> BoxStream<'static, News>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let kind = std::any::type_name::<K>();
    watcher(api, config)
        .default_backoff()
        .filter_map(move |event| {
            let news = match event {
                Ok(event) => Some(wrap(event.modify(|o| o.managed_fields_mut().clear()))),
                Err(error) => {
                    tracing::warn!(kind, %error, "watch failed; it starts again");
                    None
                }
            };
            std::future::ready(news)
        })
        .boxed()
}
