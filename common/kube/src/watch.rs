//! Watches that begin anew by themselves, and say why in the log.

use futures::{Stream, StreamExt};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

/// Seconds after which the API server ends a watch, which then begins anew: a dead
/// connection is noticed in about a minute.
pub const WATCH_SECONDS: u32 = 60;

/// The configuration of every watch; narrow it with `labels` and `fields`.
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// A watch that logs its errors and goes on.
pub fn events<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher(api, config)
        .default_backoff()
        .filter_map(|event| std::future::ready(event.inspect_err(log_failure::<K>).ok()))
}

/// The log line of a watch that failed.
pub fn log_failure<K>(error: &watcher::Error) {
    let kind = std::any::type_name::<K>();
    tracing::warn!(kind, %error, "watch failed; it starts again");
}
