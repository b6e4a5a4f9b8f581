//! Registers the plugin with kubelet, without a registrar beside the agent.
//!
//! Kubelet watches `plugins_registry/` for sockets, asks each who it is, and
//! tells it how the registration went. It dials them without an HTTP/2
//! authority, and its gRPC library then sends the percent-encoded path of the
//! socket as one, which is refused as malformed by HTTP/2 servers that check it;
//! an `@` in the file's name turns everything before it into (legal) user
//! information.
//!
//! The socket stays when the agent stops. Its removal would make kubelet forget
//! the driver: the node's CSINode entry goes, the scheduler keeps pods away, and
//! what was mounted can be unmounted only after the next registration. With the
//! socket left there, kubelet simply calls again until the next agent answers;
//! and that agent's socket replaces the old one in one step.

use std::path::{Path, PathBuf};

use berth_csi::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::readiness::Readiness;

/// The registration socket below kubelet's directory. The name is the same for
/// every agent, so that kubelet knows a restarted one.
pub fn socket(kubelet_dir: &Path) -> PathBuf {
    kubelet_dir
        .join("plugins_registry")
        .join(format!("agent@{}-reg.sock", berth_api::DRIVER))
}

/// The service that kubelet's plugin watcher calls.
#[derive(Debug)]
pub struct Registration {
    endpoint: String,
    readiness: Readiness,
    refused: mpsc::Sender<String>,
}

impl Registration {
    /// `endpoint` is the CSI socket. What kubelet says about a registration that
    /// failed is sent to the receiver; the program should end and start anew.
    pub fn new(endpoint: &Path, readiness: Readiness) -> (Self, mpsc::Receiver<String>) {
        let (refused, receiver) = mpsc::channel(1);
        let service = Self {
            endpoint: endpoint.to_string_lossy().into_owned(),
            readiness,
            refused,
        };
        (service, receiver)
    }
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: berth_api::DRIVER.to_owned(),
            endpoint: self.endpoint.clone(),
            // Of the CSI interface, not of the driver.
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        self.readiness.set_registered(status.plugin_registered);
        if status.plugin_registered {
            tracing::info!(driver = berth_api::DRIVER, "kubelet registered the plugin");
        } else {
            tracing::error!(
                driver = berth_api::DRIVER,
                error = status.error,
                "kubelet refused to register the plugin"
            );
            // Full means that the program is ending for an earlier refusal.
            let _ = self.refused.try_send(status.error);
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
