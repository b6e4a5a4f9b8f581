//! Executing one action of a plan, and reading the answer.

use berth_api::{NativeSet, OrdinalSet, names};
use berth_plan::set::{
    Action, Candidate, ClaimOwners, Kind as SetKind, NormalForm, Object, Outcome, Refusal, Set,
    TemplateCheck, Verdict,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{Api, Client, ResourceExt, api::Patch};
use serde_json::{Value, json};

use super::{
    answer::{refusal, verdict},
    cache::version,
    calls::{self, Condition},
    state::WriteWatermarks,
};
use crate::{
    context::{CallError, bounded},
    events::Kind,
};

/// The outcome of an action.
#[derive(Default)]
pub(super) struct Done {
    /// Events to publish, in order.
    pub(super) events: Vec<(Kind, &'static str, String)>,
    /// Versions of what was written.
    pub(super) wrote: WriteWatermarks,
    /// The pod whose creation this was, with the refusal, if it was one.
    pub(super) created: Option<(String, Option<Refusal>)>,
    /// The dry run's answer.
    pub(super) check: Option<TemplateCheck>,
    /// A revision with the defaults of today.
    pub(super) normal_form: Option<NormalForm>,
    /// What went wrong.
    pub(super) error: Option<CallError>,
    /// Another writer came first; nothing is wrong.
    pub(super) superseded: bool,
}

impl Done {
    /// The outcome as the planner remembers it.
    pub(super) fn outcome(&self) -> Outcome {
        match &self.error {
            _ if self.superseded => Outcome::Conflict,
            None => Outcome::Done,
            Some(error) => Outcome::Failed(match error.status() {
                Some(status) => status.message.clone(),
                None => error.chain(),
            }),
        }
    }

    /// Somebody else's write came first, or nothing is wrong at all.
    fn fail(&mut self, error: CallError) {
        self.superseded = error.is_conflict() || error.is_already_exists();
        self.error = Some(error);
    }
}

/// Executes actions for one set.
pub(super) struct Executor<'a> {
    pub(super) client: &'a Client,
    pub(super) set: &'a Set,
}

impl Executor<'_> {
    /// Executes one action.
    pub(super) async fn execute(&self, action: Action) -> Done {
        let mut done = Done::default();
        match action {
            Action::CreatePod { claims, pod } => self.create_pod(claims, pod, &mut done).await,
            Action::CreateClaims { pod, claims } => {
                if self.create_claims(claims, &pod, &mut done).await {
                    done.created = Some((pod, None));
                }
            }
            Action::DeletePod {
                name,
                uid,
                resource_version,
                grace_seconds,
            } => {
                let condition = Condition {
                    uid: &uid,
                    resource_version: &resource_version,
                    grace_seconds,
                };
                let what = format!("Pod {name}");
                match calls::delete::<Pod>(self.client, &self.set.namespace, &name, condition).await
                {
                    Ok(Some(version)) => {
                        done.wrote.pods = version;
                        done.events.push(self.success("Delete", &what));
                    }
                    Ok(None) => {}
                    Err(error) => self.failure("Delete", &what, error, &mut done),
                }
            }
            Action::RepairPod {
                name,
                uid,
                resource_version,
                labels,
            } => {
                let patch = json!({"metadata": {
                    "uid": uid, "resourceVersion": resource_version, "labels": labels,
                }});
                self.patch_pod(&name, Patch::Merge(patch), &mut done).await;
            }
            Action::KeepPod {
                name,
                uid,
                resource_version,
            } => {
                let patch = json!({"metadata": {
                    "uid": uid, "resourceVersion": resource_version,
                    "annotations": {names::pod::KEPT: resource_version},
                }});
                self.patch_pod(&name, Patch::Merge(patch), &mut done).await;
            }
            Action::AdoptPod { name, uid, owner } => {
                if self.still_ours(&mut done).await {
                    let patch = json!({"metadata": {"uid": uid, "ownerReferences": [owner]}});
                    self.patch_pod(&name, Patch::Strategic(patch), &mut done)
                        .await;
                }
            }
            Action::ReleasePod {
                name,
                uid,
                owner_uid,
            } => {
                let patch = json!({"metadata": {"uid": uid, "ownerReferences": [
                    {"$patch": "delete", "uid": owner_uid},
                ]}});
                self.patch_pod(&name, Patch::Strategic(patch), &mut done)
                    .await;
            }
            Action::UpdateClaimOwners { claims } => self.update_owners(claims, &mut done).await,
            Action::CheckTemplate { revision, pod } => {
                self.check(revision, pod, &mut done).await;
            }
            Action::NormalizeRevision {
                revision,
                resource_version,
                template,
                candidate,
            } => {
                let Some(template) = self.complete(template, &mut done).await else {
                    return done;
                };
                let candidate = match candidate {
                    None => None,
                    Some(Candidate { data, template }) => {
                        let template = template.unwrap_or_default();
                        let Some(template) = self.complete(template, &mut done).await else {
                            return done;
                        };
                        Some(Candidate { data, template })
                    }
                };
                done.normal_form = Some(NormalForm {
                    revision,
                    resource_version,
                    template,
                    candidate,
                });
            }
            revision => self.revision(revision, &mut done).await,
        }
        done
    }

    /// A template with every default of today; `Some(None)` when the API server would not
    /// take it, `None` when it gave no answer.
    async fn complete(&self, template: Value, done: &mut Done) -> Option<Option<Value>> {
        match calls::complete(self.client, &self.set.namespace, template).await {
            Ok(template) => Some(Some(template)),
            Err(error) if error.status().is_some_and(|s| s.code == 422) => Some(None),
            Err(error) => {
                done.fail(error);
                None
            }
        }
    }

    async fn revision(&self, action: Action, done: &mut Done) {
        let (client, namespace) = (self.client, &self.set.namespace);
        let answer = match action {
            Action::CreateRevision {
                name,
                labels,
                annotations,
                owner,
                revision,
                data,
            } => {
                let metadata = json!({
                    "name": name, "namespace": namespace, "labels": labels,
                    "annotations": annotations, "ownerReferences": [owner],
                });
                let body = calls::revision_body(&metadata, revision, &data);
                calls::create::<ControllerRevision>(client, namespace, &name, body).await
            }
            Action::RenumberRevision {
                name,
                resource_version,
                revision,
            } => {
                let patch = json!({
                    "metadata": {"resourceVersion": resource_version}, "revision": revision,
                });
                let patch = Patch::Merge(patch);
                calls::patch::<ControllerRevision>(client, namespace, &name, patch).await
            }
            Action::AdoptRevision { name, uid, owner } => {
                if !self.still_ours(done).await {
                    return;
                }
                let patch = json!({"metadata": {"uid": uid, "ownerReferences": [owner]}});
                let patch = Patch::Strategic(patch);
                calls::patch::<ControllerRevision>(client, namespace, &name, patch).await
            }
            Action::DeleteRevision {
                name,
                uid,
                resource_version,
            } => {
                let condition = Condition {
                    uid: &uid,
                    resource_version: &resource_version,
                    grace_seconds: None,
                };
                let deleted =
                    calls::delete::<ControllerRevision>(client, namespace, &name, condition).await;
                deleted.map(Option::unwrap_or_default)
            }
            _ => return,
        };
        match answer {
            Ok(version) => done.wrote.revisions = version,
            Err(error) => done.fail(error),
        }
    }

    async fn patch_pod(&self, name: &str, patch: Patch<Value>, done: &mut Done) {
        let what = format!("Pod {name}");
        match calls::patch::<Pod>(self.client, &self.set.namespace, name, patch).await {
            Ok(version) => {
                done.wrote.pods = version;
                done.events.push(self.success("Update", &what));
            }
            // A pod that is gone needs no owner.
            Err(error) if error.is_not_found() => {}
            Err(error) => self.failure("Update", &what, error, done),
        }
    }

    /// Whether the set, read from the API server itself, still is this one: a
    /// set that is being deleted must not take new dependants.
    async fn still_ours(&self, done: &mut Done) -> bool {
        let (client, set) = (self.client.clone(), self.set);
        let call = format!("get {} {}/{}", set.kind.name(), set.namespace, set.name);
        let live = match set.kind {
            SetKind::OrdinalSet => {
                let api: Api<OrdinalSet> = Api::namespaced(client, &set.namespace);
                let live = bounded(call, api.get_metadata(&set.name)).await;
                live.map(|l| l.metadata)
            }
            SetKind::StatefulSet => {
                let api: Api<NativeSet> = Api::namespaced(client, &set.namespace);
                let live = bounded(call, api.get_metadata(&set.name)).await;
                live.map(|l| l.metadata)
            }
        };
        match live {
            Ok(live) => {
                let same = live.uid.as_ref() == Some(&set.uid);
                let ours = same && live.deletion_timestamp.is_none();
                done.superseded = !ours;
                ours
            }
            Err(error) => {
                done.fail(error);
                false
            }
        }
    }

    async fn create_pod(&self, claims: Vec<Object>, pod: Object, done: &mut Done) {
        if !self.create_claims(claims, &pod.name, done).await {
            return;
        }
        let what = format!("Pod {}", pod.name);
        let body = pod.manifest.to_string().into_bytes();
        match calls::create::<Pod>(self.client, &self.set.namespace, &pod.name, body).await {
            Ok(version) => {
                done.wrote.pods = version;
                done.events.push(self.success("Create", &what));
                done.created = Some((pod.name, None));
            }
            Err(error) if error.is_already_exists() => {
                // Ours, made by an earlier reconcile whose answer was lost; or a
                // foreign one, which the next view shows.
                match self.report_foreign_pod(&pod.name, done).await {
                    // The next reconcile waits until the caches show it.
                    Ok(version) => done.wrote.pods = version,
                    Err(error) => done.fail(error),
                }
                done.superseded = true;
            }
            Err(error) => {
                done.created = Some((pod.name, Some(refusal(&error))));
                self.failure("Create", &what, error, done);
            }
        }
    }

    /// An event, where the pod of a name is not the set's; the pod's version.
    async fn report_foreign_pod(&self, name: &str, done: &mut Done) -> Result<u64, CallError> {
        let found = calls::pod(self.client, &self.set.namespace, name).await?;
        let ours = found
            .owner_references()
            .iter()
            .any(|o| o.uid == self.set.uid);
        if !ours {
            let note = format!("Pod {name} exists and does not belong to the set");
            let reason = berth_api::names::reason::NAME_CONFLICT;
            done.events.push((Kind::Warning, reason, note));
        }
        Ok(version(found.metadata.resource_version.as_deref()))
    }

    /// Whether all the claims exist and stay.
    async fn create_claims(&self, claims: Vec<Object>, pod: &str, done: &mut Done) -> bool {
        for claim in claims {
            let name = claim.name;
            let body = claim.manifest.to_string().into_bytes();
            let made = calls::create::<PersistentVolumeClaim>(
                self.client,
                &self.set.namespace,
                &name,
                body,
            );
            match made.await {
                Ok(version) => {
                    done.wrote.claims = done.wrote.claims.max(version);
                    let note = format!("Create Claim {name} Pod {pod} in {} success", self.title());
                    done.events.push((Kind::Normal, "SuccessfulCreate", note));
                }
                Err(error) if error.is_already_exists() => {
                    match calls::claim(self.client, &self.set.namespace, &name).await {
                        Ok(found) if found.metadata.deletion_timestamp.is_none() => {}
                        Ok(_) => {
                            done.superseded = true;
                            return false;
                        }
                        Err(error) => {
                            done.fail(error);
                            return false;
                        }
                    }
                }
                Err(error) => {
                    done.created = Some((pod.to_owned(), Some(refusal(&error))));
                    self.failure("Create", &format!("Claim {name}"), error, done);
                    return false;
                }
            }
        }
        true
    }

    async fn update_owners(&self, claims: Vec<ClaimOwners>, done: &mut Done) {
        for claim in claims {
            let patch = json!({"metadata": {
                "uid": claim.uid,
                "resourceVersion": claim.resource_version,
                "ownerReferences": claim.owners,
            }});
            let what = format!("Claim {}", claim.name);
            let patch = Patch::Merge(patch);
            let patched = calls::patch::<PersistentVolumeClaim>(
                self.client,
                &self.set.namespace,
                &claim.name,
                patch,
            );
            match patched.await {
                Ok(version) => {
                    done.wrote.claims = done.wrote.claims.max(version);
                    done.events.push(self.success("Update", &what));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => self.failure("Update", &what, error, done),
            }
        }
    }

    async fn check(&self, revision: String, pod: Object, done: &mut Done) {
        let body = pod.manifest.to_string().into_bytes();
        let answer = calls::try_pod(self.client, &self.set.namespace, &pod.name, body).await;
        let verdict = match answer {
            Ok(()) => Verdict::Passed,
            Err(error) => match verdict(&error) {
                Some(verdict) => verdict,
                // The client tries again by itself what the API server is too busy for, so
                // overload looks like silence. It stops no rollout.
                None if matches!(error, CallError::Unknown { .. }) => {
                    Verdict::Unknown(error.chain())
                }
                None => return done.fail(error),
            },
        };
        done.check = Some(TemplateCheck {
            revision,
            verdict,
            at: Timestamp::now(),
        });
    }

    /// Kind and name of the set, as events spell them.
    fn title(&self) -> String {
        format!("{} {}", self.set.kind.name(), self.set.name)
    }

    fn success(&self, verb: &str, what: &str) -> (Kind, &'static str, String) {
        let reason = match verb {
            "Create" => "SuccessfulCreate",
            "Delete" => "SuccessfulDelete",
            _ => "SuccessfulUpdate",
        };
        let note = format!("{verb} {what} in {} successful", self.title());
        (Kind::Normal, reason, note)
    }

    fn failure(&self, verb: &str, what: &str, error: CallError, done: &mut Done) {
        done.fail(error);
        let Some(error) = done.error.as_ref().filter(|_| !done.superseded) else {
            return;
        };
        let reason = match verb {
            "Create" => "FailedCreate",
            "Delete" => "FailedDelete",
            _ => "FailedUpdate",
        };
        let (title, why) = (self.title(), error.chain());
        let note = format!("{verb} {what} in {title} failed error: {why}");
        done.events.push((Kind::Warning, reason, note));
    }
}
