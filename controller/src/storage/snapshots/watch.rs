//! Watches of the kinds by which people ask for snapshots. Their definitions belong
//! to the cluster and may come and go: without them there are no such objects, which
//! is no error.

use std::time::Duration;

use berth_api::volume_snapshot::{GROUP, VERSION};
use berth_kube::watch::log_failure;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::Status,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::{
    context::{CallError, bounded},
    storage::update::Update,
};

/// How often to look whether the kinds are there now.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The kinds that are needed, as the API server lists them.
const KINDS: [&str; 3] = [
    "volumesnapshots",
    "volumesnapshotcontents",
    "volumesnapshotclasses",
];

/// Whether the API server serves VolumeSnapshots.
pub(in crate::storage) async fn is_served(client: &Client) -> Result<bool, CallError> {
    let group = format!("{GROUP}/{VERSION}");
    let call = client.list_api_group_resources(&group);
    match bounded(format!("list the kinds of {group}"), call).await {
        Ok(all) => Ok(KINDS
            .iter()
            .all(|kind| all.resources.iter().any(|r| r.name == *kind))),
        Err(error) if error.status().is_some_and(is_unknown) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an answer means that the API server does not know the kind or group: a 404,
/// in plain text.
fn is_unknown(status: &Status) -> bool {
    status.code == 404
}

/// The watches, as one stream: empty lists while the kinds are not there.
pub(in crate::storage) fn all(
    client: Client,
    config: watcher::Config,
) -> BoxStream<'static, Update> {
    stream::unfold(
        (client, config, None),
        |(client, config, served)| async move {
            if served.is_some() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let now = is_served(&client).await;
            let updates = match &now {
                Ok(true) => {
                    tracing::info!("VolumeSnapshots are served");
                    watches(&client, &config)
                }
                Ok(false) => {
                    if served != Some(false) {
                        tracing::info!("VolumeSnapshots are not installed in this cluster");
                    }
                    stream::iter(nothing()).boxed()
                }
                Err(error) => {
                    tracing::warn!(
                        error = error.chain(),
                        "not known whether there are VolumeSnapshots; tried again"
                    );
                    stream::empty().boxed()
                }
            };
            let served = now.ok().or(served).or(Some(true));
            Some((updates, (client, config, served)))
        },
    )
    .flatten()
    .boxed()
}

/// What a list of no objects of each kind says.
pub(in crate::storage) fn nothing() -> Vec<Update> {
    vec![
        Update::Request(Event::Init),
        Update::Request(Event::InitDone),
        Update::Content(Event::Init),
        Update::Content(Event::InitDone),
        Update::SnapshotClass(Event::Init),
        Update::SnapshotClass(Event::InitDone),
    ]
}

/// Ends when one of the kinds goes.
fn watches(client: &Client, config: &watcher::Config) -> BoxStream<'static, Update> {
    let all = [
        one(Api::all(client.clone()), config.clone(), Update::Request),
        one(Api::all(client.clone()), config.clone(), Update::Content),
        one(
            Api::all(client.clone()),
            config.clone(),
            Update::SnapshotClass,
        ),
    ];
    stream::select_all(all)
        .take_while(|update| std::future::ready(update.is_some()))
        .filter_map(std::future::ready)
        .boxed()
}

/// One kind's watch; nothing once the kind is gone.
fn one<K>(
    api: Api<K>,
    config: watcher::Config,
    wrap: impl Fn(Event<K>) -> Update + Send + 'static,
) -> BoxStream<'static, Option<Update>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher(api, config)
        .default_backoff()
        .filter_map(move |event| {
            let update = match event {
                Ok(event) => Some(Some(wrap(event.modify(|o| o.managed_fields_mut().clear())))),
                Err(error) if is_gone(&error) => Some(None),
                Err(error) => {
                    log_failure::<K>(&error);
                    None
                }
            };
            std::future::ready(update)
        })
        .boxed()
}

fn is_gone(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if is_unknown(status))
        }
        watcher::Error::WatchError(status) => is_unknown(status),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_no_error() {
        let failed = |code, reason: &str| {
            let status = Status {
                code,
                reason: reason.to_owned(),
                ..Status::default()
            };
            watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
        };
        assert!(is_gone(&failed(404, "NotFound")));
        assert!(is_gone(&failed(404, "Failed to parse error data")));
        assert!(!is_gone(&failed(403, "Forbidden")));
        assert!(!is_gone(&failed(503, "ServiceUnavailable")));
    }
}
