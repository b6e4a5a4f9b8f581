//! `/livez`, `/readyz` and `/metrics` on one small HTTP server.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Error;

type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Routes of the endpoint. `ready` is asked at each request of `/readyz`; its
/// error says what the program waits for, and answers 503.
///
/// `/livez` answers 200 as long as requests are served at all.
pub fn router(
    registry: Registry,
    ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Router {
    let ready: Ready = Arc::new(ready);
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(metrics).with_state(Arc::new(registry)))
}

async fn readyz(State(ready): State<Ready>) -> Response {
    match ready() {
        Ok(()) => "ok\n".into_response(),
        Err(waits) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {waits}\n"),
        )
            .into_response(),
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            body,
        )
            .into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("metrics cannot be encoded: {error}\n"),
        )
            .into_response(),
    }
}

/// Opens the port, so that a port in use stops the program at its start.
///
/// # Errors
/// [`Error::Listen`] when the address cannot be bound.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
}

/// Serves until the token is cancelled, then lets running requests end.
///
/// # Errors
/// [`Error::Serve`] when the server itself fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    token: CancellationToken,
) -> Result<(), Error> {
    axum::serve(listener, router)
        .with_graceful_shutdown(token.cancelled_owned())
        .await
        .map_err(Error::Serve)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    use super::*;

    async fn status(router: &Router, path: &str) -> StatusCode {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible")
            .status()
    }

    #[tokio::test]
    async fn readiness_follows_the_program() {
        let up = Arc::new(AtomicBool::new(false));
        let router = router(crate::registry(), {
            let up = up.clone();
            move || match up.load(Ordering::SeqCst) {
                true => Ok(()),
                false => Err("the pools are being read".to_owned()),
            }
        });
        assert_eq!(status(&router, "/livez").await, StatusCode::OK);
        assert_eq!(
            status(&router, "/readyz").await,
            StatusCode::SERVICE_UNAVAILABLE
        );
        up.store(true, Ordering::SeqCst);
        assert_eq!(status(&router, "/readyz").await, StatusCode::OK);
        assert_eq!(status(&router, "/metrics").await, StatusCode::OK);
        assert_eq!(status(&router, "/else").await, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn serves_until_it_is_told_to_stop() {
        let listener = bind("127.0.0.1:0".parse().expect("an address"))
            .await
            .expect("binds");
        let address = listener.local_addr().expect("bound");
        let taken = bind(address).await.expect_err("the port is taken");
        assert!(taken.to_string().contains(&address.to_string()), "{taken}");

        let token = CancellationToken::new();
        let server = tokio::spawn(serve(
            listener,
            router(crate::registry(), || Ok(())),
            token.clone(),
        ));
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("connects");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("# EOF"), "{answer}");
        token.cancel();
        server.await.expect("no panic").expect("ends well");
    }
}
