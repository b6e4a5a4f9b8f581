//! As much of an API server as the agent's reconcilers talk to: lists, watches
//! that miss nothing, creates, status writes that check the resource version,
//! and events that may be created only, as the agent's role has it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode},
};
use futures::stream;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How long a test waits for something that never comes.
const PATIENCE: Duration = Duration::from_secs(60);

type Key = (String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    /// Every change in order: resource, type of the event, object.
    log: Vec<(String, &'static str, Value)>,
    events: Vec<String>,
}

/// The server; cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<usize>,
}

impl ApiServer {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }

    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, std::convert::Infallible>(server.answer(request.map(Body::new)).await) }
        });
        Client::new(service, "default")
    }

    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), name.to_owned());
        self.state.lock().expect("sound").objects.get(&key).cloned()
    }

    /// Makes or replaces an object as its spec's writer would.
    pub fn put(&self, plural: &str, mut object: Value) {
        let name = object["metadata"]["name"]
            .as_str()
            .expect("named")
            .to_owned();
        object["metadata"]["uid"] = json!(format!("uid-{name}"));
        object["metadata"]["generation"] = json!(1);
        let old = self.get(plural, &name);
        if let Some(status) = old.as_ref().and_then(|old| old.get("status")) {
            object["status"] = status.clone();
        }
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.store(plural, &name, object, kind);
    }

    pub fn remove(&self, plural: &str, name: &str) {
        let object = self.get(plural, name).expect("there");
        self.store(plural, name, object, "DELETED");
    }

    /// Reasons of the events that were written.
    pub fn events(&self) -> Vec<String> {
        self.state.lock().expect("sound").events.clone()
    }

    /// How many times the object's status was written.
    pub fn writes(&self, plural: &str, name: &str) -> usize {
        let state = self.state.lock().expect("sound");
        state
            .log
            .iter()
            .filter(|(resource, kind, object)| {
                resource == plural && *kind == "MODIFIED" && object["metadata"]["name"] == name
            })
            .count()
    }

    /// Waits until the object is as wanted.
    pub async fn until(&self, plural: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(object) = self.get(plural, name).filter(|object| wanted(object)) {
                    return object;
                }
                changed.changed().await.expect("the server lives");
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(object) => object,
            Err(_) => panic!("{plural}/{name} stays {:#?}", self.get(plural, name)),
        }
    }

    fn store(&self, plural: &str, name: &str, mut object: Value, kind: &'static str) -> Value {
        let mut state = self.state.lock().expect("sound");
        object["metadata"]["resourceVersion"] = json!((state.log.len() + 1).to_string());
        let key = (plural.to_owned(), name.to_owned());
        match kind {
            "DELETED" => drop(state.objects.remove(&key)),
            _ => drop(state.objects.insert(key, object.clone())),
        }
        state.log.push((plural.to_owned(), kind, object.clone()));
        self.changed.send_replace(state.log.len());
        object
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let query = parts.uri.query().unwrap_or_default();
        match (&parts.method, &path[..]) {
            (
                &Method::POST,
                [
                    "apis",
                    "events.k8s.io",
                    "v1",
                    "namespaces",
                    "default",
                    "events",
                ],
            ) => {
                let reason = body["reason"].as_str().expect("a reason").to_owned();
                self.state.lock().expect("sound").events.push(reason);
                reply(StatusCode::CREATED, &body)
            }
            (&Method::GET, ["apis", "berth.dev", "v1alpha1", plural]) => {
                self.list_or_watch(plural, query)
            }
            (&Method::GET, ["apis", "berth.dev", "v1alpha1", plural, name]) => {
                match self.get(plural, name) {
                    Some(object) => reply(StatusCode::OK, &object),
                    None => refuse(StatusCode::NOT_FOUND, "NotFound"),
                }
            }
            (&Method::POST, ["apis", "berth.dev", "v1alpha1", plural]) => {
                let name = body["metadata"]["name"].as_str().expect("named").to_owned();
                if self.get(plural, &name).is_some() {
                    return refuse(StatusCode::CONFLICT, "AlreadyExists");
                }
                let mut object = body;
                // A main resource's write does not touch the status.
                object.as_object_mut().expect("an object").remove("status");
                reply(
                    StatusCode::CREATED,
                    &self.store(plural, &name, object, "ADDED"),
                )
            }
            (&Method::PUT, ["apis", "berth.dev", "v1alpha1", plural, name, "status"]) => {
                let Some(mut object) = self.get(plural, name) else {
                    return refuse(StatusCode::NOT_FOUND, "NotFound");
                };
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                if version(&object) != version(&body) {
                    return refuse(StatusCode::CONFLICT, "Conflict");
                }
                object["status"] = body["status"].clone();
                reply(
                    StatusCode::OK,
                    &self.store(plural, name, object, "MODIFIED"),
                )
            }
            _ => refuse(StatusCode::FORBIDDEN, "Forbidden"),
        }
    }

    fn list_or_watch(&self, plural: &str, query: &str) -> Response<Body> {
        let query: BTreeMap<&str, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key, value.replace("%3D", "=").replace("%2C", ",")))
            .collect();
        let selector = query.get("fieldSelector").cloned().unwrap_or_default();
        if query.get("watch").map(String::as_str) == Some("true") {
            let version = query.get("resourceVersion").and_then(|v| v.parse().ok());
            return self.watch(plural.to_owned(), selector, version.unwrap_or(0));
        }
        let state = self.state.lock().expect("sound");
        let items: Vec<_> = state
            .objects
            .iter()
            .filter(|((resource, _), object)| resource == plural && selects(&selector, object))
            .map(|(_, object)| object.clone())
            .collect();
        let version = state.log.len().to_string();
        reply(
            StatusCode::OK,
            &json!({
                "apiVersion": "berth.dev/v1alpha1",
                "kind": "List",
                "metadata": {"resourceVersion": version},
                "items": items,
            }),
        )
    }

    fn watch(&self, plural: String, selector: String, from: usize) -> Response<Body> {
        let server = self.clone();
        let start = (from, self.changed.subscribe());
        let events = stream::unfold(start, move |(mut next, mut changed)| {
            let (server, plural, selector) = (server.clone(), plural.clone(), selector.clone());
            async move {
                loop {
                    let entry = {
                        let state = server.state.lock().expect("sound");
                        state.log.get(next).cloned()
                    };
                    let Some((resource, kind, object)) = entry else {
                        changed.changed().await.ok()?;
                        continue;
                    };
                    next += 1;
                    if resource == plural && selects(&selector, &object) {
                        let line = format!("{}\n", json!({"type": kind, "object": object}));
                        return Some((Ok::<_, std::io::Error>(line), (next, changed)));
                    }
                }
            }
        });
        Response::new(Body::from_stream(events))
    }
}

fn selects(selector: &str, object: &Value) -> bool {
    selector.split(',').all(|term| match term.split_once('=') {
        Some(("spec.node", node)) => object["spec"]["node"] == node,
        Some(("metadata.name", name)) => object["metadata"]["name"] == name,
        Some((field, _)) => panic!("no selector for {field}"),
        None => true,
    })
}

fn reply(status: StatusCode, body: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .expect("a response")
}

fn refuse(status: StatusCode, reason: &str) -> Response<Body> {
    reply(
        status,
        &json!({
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "reason": reason,
            "message": reason,
            "code": status.as_u16(),
        }),
    )
}
