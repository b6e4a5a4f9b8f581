//! What the planner sees: one set and everything that belongs to it or stands in
//! its way, at one moment.

use std::{collections::BTreeMap, sync::Arc};

use berth_api::{
    ClaimRetention, OrdinalSetSpec, OrdinalSetStatus, PodManagementPolicy, UpdateStrategyType,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString};
use serde_json::Value;

use super::memory::Memory;
use crate::volumes::ClaimWait;

/// Kinds of set. Both share every field that the planner reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `berth.dev/v1alpha1` OrdinalSet.
    OrdinalSet,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

impl Kind {
    /// `apiVersion` of the kind.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::OrdinalSet => "berth.dev/v1alpha1",
            Kind::StatefulSet => "apps/v1",
        }
    }

    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::OrdinalSet => "OrdinalSet",
            Kind::StatefulSet => "StatefulSet",
        }
    }
}

/// The set, as last read.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a later set of the same name is another set.
    pub uid: String,
    /// Its generation: grows with each change of the spec.
    pub generation: i64,
    /// It has a deletionTimestamp.
    pub deleting: bool,
    /// Its annotations; revisions carry them (`kubectl rollout history` reads one).
    pub annotations: BTreeMap<String, String>,
    /// The version that was read.
    pub resource_version: String,
    /// The spec; apps/v1 has the same field names.
    pub spec: OrdinalSetSpec,
    /// The status, as last read.
    pub status: OrdinalSetStatus,
}

/// A pod, as far as decisions need it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The version that was read.
    pub resource_version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The owner that controls it, where there is one.
    pub controller: Option<Controller>,
    /// Its phase; `None` before the API server has set one.
    pub phase: Option<PodPhase>,
    /// Condition Ready, and since when.
    pub ready: Option<Timestamp>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it began to be deleted (deletionTimestamp less the grace).
    pub deleted: Option<Timestamp>,
    /// Its own termination grace period in seconds.
    pub grace_seconds: i64,
    /// The node it runs on.
    pub node: Option<String>,
    /// Volume name -> claim name, of its volumes that are claims.
    pub claims: BTreeMap<String, String>,
    /// What keeps it from being ready, as the scheduler or kubelet says it:
    /// `container app: CrashLoopBackOff`.
    pub trouble: Option<String>,
    /// The scheduler says that no node fits.
    pub unschedulable: bool,
    /// Gates that hold it back from the scheduler.
    pub scheduling_gates: Vec<String>,
    /// Since when it is not ready, where kubelet or the node controller says so.
    pub unready: Option<Timestamp>,
    /// Its containers were ready when its node was last heard of, and the node
    /// controller has marked the pod unready since: it may well run.
    pub node_silent: bool,
}

/// Who controls an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have started.
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well. A set's pod should not.
    Succeeded,
    /// All containers ended, or the node gave it up.
    Failed,
}

/// A claim, as far as decisions need it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The version that was read.
    pub resource_version: String,
    /// It has a deletionTimestamp.
    pub deleting: bool,
    /// Its owners, all of them.
    pub owners: Vec<OwnerReference>,
    /// It is bound to a volume.
    pub bound: bool,
}

/// A ControllerRevision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revision {
    /// Its namespace.
    pub namespace: String,
    /// Its name; pods carry it as a label.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The version that was read.
    pub resource_version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// UID of the owner that controls it.
    pub controller: Option<String>,
    /// Its number.
    pub revision: i64,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// The template, wrapped as a patch of the set.
    pub data: Value,
}

/// Why a creation failed, as the loop remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the API server said, or that it said nothing.
    pub message: String,
    /// What it objects to.
    pub kind: RefusalKind,
}

/// What the API server objects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// What the template says (400, 422).
    Template,
    /// The circumstances: a quota, a policy, a permission (403).
    Circumstances,
    /// Nothing: it could not do it, or gave no answer.
    Unavailable,
}

/// What a dry run said about a revision's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateCheck {
    /// Name of the revision.
    pub revision: String,
    /// The answer.
    pub verdict: Verdict,
    /// When it was given.
    pub at: Timestamp,
}

/// Answer of a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Such a pod would be admitted.
    Passed,
    /// Such a pod would be refused, with the API server's words.
    Refused(String),
    /// The API server could not say (quota, an unsupported webhook, overload);
    /// the rollout goes on.
    Unknown(String),
}

/// A revision's template as the API server would complete it today.
#[derive(Clone, Debug, PartialEq)]
pub struct NormalForm {
    /// Name of the revision.
    pub revision: String,
    /// The version of the revision that was asked about.
    pub resource_version: String,
    /// The template with every default; `None` when the API server would not
    /// take it any more.
    pub template: Option<Value>,
    /// The set's template with every default, where it was asked about too.
    pub candidate: Option<Candidate>,
}

/// A template that is compared with a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its data as a revision would have it, which says which template it is.
    pub data: String,
    /// The template: as it stands in the set in a question, with every default in the
    /// answer; `None` when the API server would not take it.
    pub template: Option<Value>,
}

/// What the planner sees.
#[derive(Clone, Debug)]
pub struct View {
    /// The set.
    pub set: Set,
    /// Every pod of the namespace whose name has the form `<set>-<number>`,
    /// whoever owns it.
    pub pods: Vec<Arc<Pod>>,
    /// Claims of the namespace by name; at least those of the set's ordinals.
    pub claims: BTreeMap<String, Arc<Claim>>,
    /// Revisions of the namespace whose name begins with `<set>-`, whoever owns them.
    pub revisions: Vec<Arc<Revision>>,
    /// Why claims wait, by claim name, as the storage part says.
    pub claim_waits: BTreeMap<String, ClaimWait>,
    /// Pods whose creation was last refused, by pod name.
    pub refusals: BTreeMap<String, Refusal>,
    /// The last dry run, if one was made.
    pub template_check: Option<TemplateCheck>,
    /// The newest revision with today's defaults, if they were asked for.
    pub normal_form: Option<NormalForm>,
    /// What earlier reconciles came to.
    pub memory: Memory,
    /// Now.
    pub now: Timestamp,
}

impl Set {
    /// Replicas that are wanted.
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1).max(0)
    }

    /// The first ordinal.
    pub fn start(&self) -> i32 {
        let ordinals = self.spec.ordinals.as_ref();
        ordinals.and_then(|o| o.start).unwrap_or(0).max(0)
    }

    /// The ordinals that are wanted.
    pub fn wanted(&self) -> std::ops::Range<i32> {
        self.start()..self.start().saturating_add(self.replicas())
    }

    /// Pods wait for one another.
    pub fn ordered(&self) -> bool {
        self.spec.pod_management_policy.unwrap_or_default() == PodManagementPolicy::OrderedReady
    }

    /// Pods are replaced by the set, not by people.
    pub fn rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|s| s.kind).unwrap_or_default() == UpdateStrategyType::RollingUpdate
    }

    /// The update strategy is none that Berth knows.
    pub fn unknown_strategy(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|s| s.kind) == Some(UpdateStrategyType::Unknown)
    }

    /// The lowest ordinal that a rolling update replaces.
    pub fn first_updated(&self) -> i32 {
        let rolling = (self.spec.update_strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
        let partition = rolling.and_then(|r| r.partition).unwrap_or(0).max(0);
        self.start().saturating_add(partition)
    }

    /// Whether the update strategy is RollingUpdate without any bounds, as only an
    /// explicit `type` leaves it: the API server completes the rest.
    pub fn rolling_without_bounds(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        self.rolling() && strategy.is_some_and(|s| s.kind.is_some() && s.rolling_update.is_none())
    }

    /// Replicas that may be unavailable during a rolling update: at least 1; a
    /// percentage is of the wanted replicas, rounded down.
    pub fn max_unavailable(&self) -> i32 {
        let rolling = (self.spec.update_strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
        let value = match rolling.and_then(|r| r.max_unavailable.as_ref()) {
            None => 1,
            Some(IntOrString::Int(n)) => *n,
            Some(IntOrString::String(text)) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                let share = i64::from(self.replicas()) * percent.clamp(0, 100) / 100;
                i32::try_from(share).unwrap_or(i32::MAX)
            }
        };
        value.max(1)
    }

    /// How long a rollout may make no progress before it counts as stalled. apps/v1 has no
    /// such field, so a native set has no limit.
    pub fn progress_deadline(&self) -> Option<jiff::SignedDuration> {
        let seconds = self.spec.progress_deadline_seconds.unwrap_or(600).max(1);
        let deadline = jiff::SignedDuration::from_secs(i64::from(seconds));
        (self.kind == Kind::OrdinalSet).then_some(deadline)
    }

    /// Seconds that a pod must be ready before it counts.
    pub fn min_ready_seconds(&self) -> i64 {
        i64::from(self.spec.min_ready_seconds.unwrap_or(0).max(0))
    }

    /// Claims go when their replica is scaled away.
    pub fn delete_when_scaled(&self) -> bool {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        policy.and_then(|p| p.when_scaled) == Some(ClaimRetention::Delete)
    }

    /// Claims go when the set is deleted.
    pub fn delete_when_deleted(&self) -> bool {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        policy.and_then(|p| p.when_deleted) == Some(ClaimRetention::Delete)
    }

    /// Name of the pod of an ordinal.
    pub fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// (template name, claim name) of an ordinal's claims, in the templates' order.
    pub fn claim_names(&self, ordinal: i32) -> impl Iterator<Item = (&str, String)> {
        self.spec.volume_claim_templates.iter().map(move |claim| {
            let template = claim["metadata"]["name"].as_str().unwrap_or_default();
            (template, format!("{template}-{}-{ordinal}", self.name))
        })
    }

    /// The ordinal in a claim's name, where one of the claim templates gives it.
    pub fn ordinal_of_claim(&self, claim: &str) -> Option<i32> {
        let templates = self.spec.volume_claim_templates.iter();
        let mut names = templates.filter_map(|t| t["metadata"]["name"].as_str());
        names.find_map(|name| self.ordinal(claim.strip_prefix(name)?.strip_prefix('-')?))
    }

    /// The ordinal in a pod's name, if it has exactly the form that this set
    /// gives (`web-01` is no pod of `web`).
    pub fn ordinal(&self, pod: &str) -> Option<i32> {
        berth_model::claim::ordinal_of(&self.name, pod)
    }
}

impl Pod {
    /// Runs, and its Ready condition is true.
    pub fn is_ready(&self) -> bool {
        self.phase == Some(PodPhase::Running) && self.ready.is_some()
    }

    /// Being deleted.
    pub fn terminating(&self) -> bool {
        self.deleted.is_some()
    }

    /// Ended, and not coming back by itself.
    pub fn ended(&self) -> bool {
        matches!(self.phase, Some(PodPhase::Failed | PodPhase::Succeeded))
    }

    /// When it becomes (or became) available, if it stays ready.
    pub fn available_at(&self, set: &Set) -> Option<Timestamp> {
        let since = self.ready.filter(|_| self.is_ready())?;
        since
            .checked_add(jiff::SignedDuration::from_secs(set.min_ready_seconds()))
            .ok()
    }

    /// Ready for minReadySeconds, whether or not it is being deleted.
    pub fn ready_for_long(&self, view: &View) -> bool {
        // With minReadySeconds 0 a ready pod counts at once, whatever the clocks say.
        let at_once = view.set.min_ready_seconds() == 0 && self.is_ready();
        at_once
            || self
                .available_at(&view.set)
                .is_some_and(|at| at <= view.now)
    }

    /// Ready for minReadySeconds, and staying.
    pub fn available(&self, view: &View) -> bool {
        !self.terminating() && self.ready_for_long(view)
    }

    /// Made before the moment that the set's `restartedAt` names, which has come.
    pub fn before_restart(&self, view: &View) -> bool {
        let restart = view.set.spec.restarted_at.as_ref();
        let restart = restart.map(|at| at.0).filter(|at| *at <= view.now);
        restart.is_some_and(|at| self.created.is_some_and(|created| created < at))
    }

    /// Name of the revision it was made from.
    pub fn revision(&self) -> &str {
        let label = self.labels.get(berth_api::names::pod::REVISION);
        label.map_or("", String::as_str)
    }
}
