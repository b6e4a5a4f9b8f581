//! Registration, as kubelet's plugin watcher goes about it.

mod common;

use berth_agent::{csi::server, readiness::Readiness, registration, run};
use berth_csi::registration::{
    InfoRequest, RegistrationStatus, registration_client::RegistrationClient,
};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn tells_kubelet_and_ends_when_it_is_refused() {
    let kubelet = tempfile::tempdir().expect("a directory");
    let socket = registration::socket(kubelet.path());
    let name = socket.file_name().expect("named").to_str().expect("text");
    // Kubelet passes hidden files over; `@` keeps the authority legal.
    assert_eq!(name, "agent@csi.berth.dev-reg.sock");

    let readiness = Readiness::default();
    readiness.set_pools_open();
    readiness.set_reported();
    let endpoint = kubelet.path().join("csi.sock");
    let (service, refused) = registration::Registration::new(&endpoint, readiness.clone());
    let incoming = server::listen(&socket).expect("listens");
    let token = CancellationToken::new();
    let server = tokio::spawn(run::serve_registration(
        incoming,
        service,
        refused,
        token.clone(),
    ));

    let mut client = RegistrationClient::new(common::connect(&socket).await);
    let info = client
        .get_info(InfoRequest {})
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(info.r#type, "CSIPlugin");
    assert_eq!(info.name, "csi.berth.dev");
    assert_eq!(info.endpoint, endpoint.to_str().expect("text"));
    assert_eq!(info.supported_versions, ["1.0.0"]);

    assert!(readiness.check().is_err());
    let status = RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    };
    client
        .notify_registration_status(status)
        .await
        .expect("answers");
    assert_eq!(readiness.check(), Ok(()));

    let status = RegistrationStatus {
        plugin_registered: false,
        error: "no such version".to_owned(),
    };
    // The answer may get lost: the program is ending.
    let _ = client.notify_registration_status(status).await;
    let error = server.await.expect("no panic").expect_err("refused");
    assert!(error.to_string().contains("no such version"), "{error}");
    assert!(readiness.check().is_err());
    assert!(socket.exists(), "the next agent takes it over");
}

#[tokio::test]
async fn stops_when_it_is_told_to() {
    let kubelet = tempfile::tempdir().expect("a directory");
    let socket = registration::socket(kubelet.path());
    let endpoint = kubelet.path().join("csi.sock");
    let (service, refused) = registration::Registration::new(&endpoint, Readiness::default());
    let incoming = server::listen(&socket).expect("listens");
    let token = CancellationToken::new();
    let server = tokio::spawn(run::serve_registration(
        incoming,
        service,
        refused,
        token.clone(),
    ));
    token.cancel();
    server.await.expect("no panic").expect("ends well");
    server::listen(&socket).expect("the next agent takes the socket over");
}
