//! The two protocols between kubelet and Berth's agent, generated at build time
//! from the vendored files in `proto/`: both servers and clients (tests are the
//! clients).
#![allow(
    clippy::all,
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    reason = "everything below is generated, and documented in the protocol files"
)]

/// The Container Storage Interface, version 1.13.
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// How a plugin makes itself known to kubelet.
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
