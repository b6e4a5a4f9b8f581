//! Who the driver is, and whether it is ready.

use std::collections::HashMap;

use berth_csi::csi::{
    self, GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse, identity_server,
    plugin_capability::{self, service, volume_expansion},
};
use tonic::{Request, Response, Status};

use crate::readiness::Readiness;

/// The CSI identity service.
#[derive(Debug)]
pub struct Identity {
    readiness: Readiness,
}

impl Identity {
    /// Answers Probe from `readiness`.
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness }
    }
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: berth_api::DRIVER.to_owned(),
            vendor_version: berth_telemetry::VERSION.to_owned(),
            manifest: HashMap::from([("commit".to_owned(), berth_telemetry::COMMIT.to_owned())]),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        use plugin_capability::{Service, Type, VolumeExpansion};
        let capabilities = [
            Type::Service(Service {
                r#type: service::Type::ControllerService.into(),
            }),
            Type::Service(Service {
                r#type: service::Type::VolumeAccessibilityConstraints.into(),
            }),
            Type::VolumeExpansion(VolumeExpansion {
                r#type: volume_expansion::Type::Online.into(),
            }),
        ];
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: capabilities
                .into_iter()
                .map(|capability| PluginCapability {
                    r#type: Some(capability),
                })
                .collect(),
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse {
            ready: Some(self.readiness.pools_are_open()),
        }))
    }
}
