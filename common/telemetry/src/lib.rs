//! Logs, metrics and health endpoints, the same for both programs.
//!
//! ```no_run
//! # async fn g(token: tokio_util::sync::CancellationToken) -> Result<(), berth_telemetry::Error> {
//! berth_telemetry::init_tracing()?;
//! let mut registry = berth_telemetry::registry();
//! // register metrics under registry.sub_registry_with_prefix("berth_agent")
//! let listener = berth_telemetry::bind("0.0.0.0:9809".parse().expect("an address")).await?;
//! let router = berth_telemetry::router(registry, || Err("starting".to_owned()));
//! berth_telemetry::serve(listener, router, token).await
//! # }
//! ```

mod http;
mod process;
mod timings;

pub use http::{bind, router, serve};
pub use process::registry;
pub use timings::Timings;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

/// Environment variable with the log filter, `info` or `berth_agent=debug,info`.
pub const LOG_VARIABLE: &str = "BERTH_LOG";

/// What can go wrong in logs, metrics and health endpoints.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter in [`LOG_VARIABLE`] cannot be parsed.
    #[error(
        "{LOG_VARIABLE}={value:?} is not a log filter; write for example info, or berth_agent=debug,info"
    )]
    Filter {
        /// The variable's value.
        value: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A log subscriber is installed already.
    #[error("logging was already set up in this process")]
    Installed,
    /// The health and metrics endpoint cannot listen.
    #[error(
        "cannot listen on {address} for health and metrics; is another process using the port?"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The health and metrics endpoint stopped.
    #[error("the health and metrics endpoint failed")]
    Serve(#[source] io::Error),
}

/// Version of the workspace, which is also the image's tag.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit that was built: twelve digits, or `unknown`. Changes that are not
/// committed do not show.
pub const COMMIT: &str = env!("BERTH_COMMIT");

/// Version and commit, as `--version` and the agents' status show them:
/// `0.1.0 (0123456789ab)`.
pub const fn version() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("BERTH_COMMIT"), ")")
}

/// Sends logs to standard error: text for a terminal, else one JSON object per
/// line. The filter is [`LOG_VARIABLE`], `info` when unset.
///
/// # Errors
/// [`Error::Filter`] when the variable cannot be parsed, [`Error::Installed`]
/// when called twice.
pub fn init_tracing() -> Result<(), Error> {
    let value = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let filter = filter(&value)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let installed = if io::stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    installed.map_err(|_| Error::Installed)
}

/// The client logs each request that failed as an error; its callers say what
/// that means and whether they try again.
const DEFAULT_FILTER: &str = "kube_client::client::builder=off,info";

fn filter(value: &str) -> Result<EnvFilter, Error> {
    let text = if value.trim().is_empty() {
        DEFAULT_FILTER
    } else {
        value
    };
    EnvFilter::try_new(text).map_err(|source| Error::Filter {
        value: value.to_owned(),
        source,
    })
}

/// An error with its causes, `cannot connect: connection refused`; a cause whose
/// text its parent repeats already is left out.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_version_and_commit() {
        assert_eq!(version(), format!("{VERSION} ({COMMIT})"));
        assert!(!COMMIT.is_empty());
    }

    #[test]
    fn filters_default_to_info() {
        for (value, shown) in [
            ("", DEFAULT_FILTER),
            (" ", DEFAULT_FILTER),
            ("a=debug,warn", "a=debug,warn"),
        ] {
            assert_eq!(filter(value).expect("parses").to_string(), shown);
        }
        let refused = filter("a=loud").expect_err("no such level").to_string();
        assert!(refused.contains("BERTH_LOG=\"a=loud\""), "{refused}");
    }

    #[test]
    fn causes_are_said_once() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let serve = Error::Serve(refused);
        assert_eq!(
            causes(&serve),
            "the health and metrics endpoint failed: connection refused"
        );
        let wrapped = io::Error::other("says it all");
        assert_eq!(causes(&wrapped), "says it all");
    }
}
