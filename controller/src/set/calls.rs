//! The calls that a plan is made of, one function each, all conditional.

use berth_kube::write::{self, version};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::ControllerRevision, core::v1 as core},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PostParams, Preconditions},
    core::Request,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::{CallError, FIELD_MANAGER, bounded};

/// What is read of an answer.
#[derive(Deserialize)]
struct Answer {
    metadata: AnswerMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMeta {
    #[serde(default)]
    resource_version: Option<String>,
}

fn params() -> PostParams {
    write::post(FIELD_MANAGER)
}

/// POSTs bytes as they are: what the planner wrote is what the API server gets.
/// Answers the new object's version.
pub(super) async fn create<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    body: Vec<u8>,
) -> Result<u64, CallError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let call = format!("create {} {namespace}/{name}", K::kind(&()));
    let path = K::url_path(&(), Some(namespace));
    bounded(call, async {
        let request = Request::new(path).create(&params(), body);
        let answer: Answer = client
            .request(request.map_err(kube::Error::BuildRequest)?)
            .await?;
        Ok(version(answer.metadata.resource_version.as_deref()))
    })
    .await
}

/// POSTs a pod that is not kept, with every field checked.
pub(super) async fn try_pod(
    client: &Client,
    namespace: &str,
    name: &str,
    body: Vec<u8>,
) -> Result<(), CallError> {
    let path = core::Pod::url_path(&(), Some(namespace));
    bounded(format!("try Pod {namespace}/{name}"), async {
        let params = PostParams {
            dry_run: true,
            ..params()
        };
        let request = Request::new(path).create(&params, body);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        let uri = format!("{}&fieldValidation=Strict", request.uri());
        if let Ok(uri) = uri.parse() {
            *request.uri_mut() = uri;
        }
        client.request_text(request).await.map(|_| ())
    })
    .await
}

/// The template of a pod with the defaults that the API server gives it today.
/// Asked as a PodTemplate that is not kept: nothing but that kind is completed
/// the same way and harms nobody.
pub(super) async fn complete(
    client: &Client,
    namespace: &str,
    template: Value,
) -> Result<Value, CallError> {
    let body = json!({
        "apiVersion": "v1", "kind": "PodTemplate",
        "metadata": {"generateName": "berth-"}, "template": template,
    });
    let path = core::PodTemplate::url_path(&(), Some(namespace));
    bounded(format!("complete a template in {namespace}"), async {
        let params = PostParams {
            dry_run: true,
            ..params()
        };
        let body = body.to_string().into_bytes();
        let request = Request::new(path).create(&params, body);
        let mut answer: Value = client
            .request(request.map_err(kube::Error::BuildRequest)?)
            .await?;
        Ok(answer["template"].take())
    })
    .await
}

/// Patches an object; the patch carries the UID or version that it must have.
pub(super) async fn patch<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    patch: Patch<Value>,
) -> Result<u64, CallError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    patch_part::<K>(client, namespace, name, None, patch).await
}

/// Patches an object or, where `part` names one, a subresource of it.
pub(super) async fn patch_part<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    part: Option<&str>,
    patch: Patch<Value>,
) -> Result<u64, CallError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let call = format!("patch {} {namespace}/{name}", K::kind(&()));
    let path = K::url_path(&(), Some(namespace));
    let params = write::patch(FIELD_MANAGER);
    bounded(call, async {
        let request = match part {
            Some(part) => Request::new(path).patch_subresource(part, name, &params, &patch),
            None => Request::new(path).patch(name, &params, &patch),
        };
        let answer: Answer = client
            .request(request.map_err(kube::Error::BuildRequest)?)
            .await?;
        Ok(version(answer.metadata.resource_version.as_deref()))
    })
    .await
}

/// What a deletion must meet.
pub(super) struct Condition<'a> {
    pub(super) uid: &'a str,
    pub(super) resource_version: &'a str,
    pub(super) grace_seconds: Option<std::num::NonZeroU32>,
}

/// Deletes an object if it is still the one that was seen. Answers the version of
/// the object as it is now, where it still is; `None` when it was gone already.
pub(super) async fn delete<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    condition: Condition<'_>,
) -> Result<Option<u64>, CallError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let call = format!("delete {} {namespace}/{name}", K::kind(&()));
    let path = K::url_path(&(), Some(namespace));
    let params = DeleteParams {
        grace_period_seconds: condition.grace_seconds.map(std::num::NonZeroU32::get),
        preconditions: Some(Preconditions {
            uid: Some(condition.uid.to_owned()),
            resource_version: Some(condition.resource_version.to_owned()),
        }),
        ..DeleteParams::default()
    };
    let done = bounded(call, async {
        let request = Request::new(path).delete(name, &params);
        let request = request.map_err(kube::Error::BuildRequest)?;
        client.request::<Answer>(request).await
    })
    .await;
    match done {
        Ok(answer) => Ok(Some(version(answer.metadata.resource_version.as_deref()))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The claim of a name, from the API server itself.
pub(super) async fn claim(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<core::PersistentVolumeClaim, CallError> {
    let api: Api<core::PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    bounded(format!("get claim {namespace}/{name}"), api.get(name)).await
}

/// The pod of a name, from the API server itself.
pub(super) async fn pod(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<core::Pod, CallError> {
    let api: Api<core::Pod> = Api::namespaced(client.clone(), namespace);
    bounded(format!("get pod {namespace}/{name}"), api.get(name)).await
}

/// A body for a ControllerRevision whose data is sent byte for byte.
pub(super) fn revision_body(metadata: &Value, revision: i64, data: &str) -> Vec<u8> {
    let kind = ControllerRevision::kind(&());
    let api = ControllerRevision::api_version(&());
    format!(
        r#"{{"apiVersion":"{api}","kind":"{kind}","metadata":{metadata},"revision":{revision},"data":{data}}}"#
    )
    .into_bytes()
}
