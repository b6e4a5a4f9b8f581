//! A plan as text for people: what would be done now, and why, and what waits.

use std::fmt::Write as _;

use super::{
    plan::{Action, Object, Plan},
    view::{Set, View},
};

/// Each decision of `plan` with its reason.
pub fn explain(view: &View, plan: &Plan) -> String {
    let set = &view.set;
    let mut out = String::new();
    let status = &plan.status;
    line(
        &mut out,
        format_args!(
            "{} {}/{}: {} wanted, {} exist, {} ready, {} available, {} updated",
            set.kind.name(),
            set.namespace,
            set.name,
            set.replicas(),
            status.replicas,
            status.ready_replicas,
            status.available_replicas,
            status.updated_replicas
        ),
    );
    line(&mut out, format_args!("policy: {}", policy(set)));
    if set.deleting {
        line(
            &mut out,
            format_args!("the set is being deleted: the garbage collector removes its pods"),
        );
    }
    if plan.steps.is_empty() {
        line(&mut out, format_args!("nothing to do"));
    }
    for step in &plan.steps {
        line(
            &mut out,
            format_args!("do: {}\n    because {}", action(&step.action), step.reason),
        );
    }
    if plan.status_first {
        let victims: Vec<&str> = status.disrupting.iter().map(|d| d.pod.as_str()).collect();
        line(
            &mut out,
            format_args!(
                "first: publish the status, victims: [{}]",
                victims.join(" ")
            ),
        );
    }
    for wait in &plan.waits {
        line(
            &mut out,
            format_args!("wait: {} ({})", wait.message, wait.reason.as_str()),
        );
    }
    for notice in &plan.notices {
        line(
            &mut out,
            format_args!("note: {} ({})", notice.message, notice.reason),
        );
    }
    if let Some(ms) = plan.requeue_after_ms {
        line(&mut out, format_args!("look again after {ms} ms"));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
    out.push('\n');
}

fn policy(set: &Set) -> String {
    let order = if set.ordered() {
        "OrderedReady"
    } else {
        "Parallel"
    };
    let update = if set.rolling() {
        format!(
            "RollingUpdate from the top down to ordinal {}, at most {} unavailable",
            set.first_updated(),
            set.max_unavailable()
        )
    } else {
        "OnDelete".to_owned()
    };
    let keep = |delete: bool| if delete { "deleted" } else { "kept" };
    format!(
        "{order}; {update}; claims are {} on scale-down, {} with the set",
        keep(set.delete_when_scaled()),
        keep(set.delete_when_deleted())
    )
}

fn names(objects: &[Object]) -> String {
    let names: Vec<&str> = objects.iter().map(|o| o.name.as_str()).collect();
    names.join(", ")
}

/// One action in a line.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::CreatePod { claims, pod } => {
            let revision = &pod.manifest["metadata"]["labels"][berth_api::names::pod::REVISION];
            let revision = revision.as_str().unwrap_or_default();
            if claims.is_empty() {
                format!("create pod {} at {revision}", pod.name)
            } else {
                format!(
                    "create claim {}, then pod {} at {revision}",
                    names(claims),
                    pod.name
                )
            }
        }
        Action::CreateClaims { claims, .. } => format!("create claim {}", names(claims)),
        Action::DeletePod {
            name,
            uid,
            resource_version,
            grace_seconds,
        } => {
            let grace = match grace_seconds {
                Some(seconds) => format!("grace {seconds}s"),
                None => "its own grace".to_owned(),
            };
            format!("delete pod {name} (uid {uid}, version {resource_version}, {grace})")
        }
        Action::RepairPod { name, .. } => format!("set the identity labels of pod {name}"),
        Action::KeepPod { name, .. } => format!("mark pod {name} as staying after all"),
        Action::AdoptPod { name, .. } => format!("adopt pod {name}"),
        Action::ReleasePod { name, .. } => format!("release pod {name}"),
        Action::UpdateClaimOwners { claims } => {
            let claims: Vec<String> = (claims.iter())
                .map(|c| {
                    let owners: Vec<String> = (c.owners.iter())
                        .map(|o| format!("{} {}", o.kind, o.name))
                        .collect();
                    format!("{} to [{}]", c.name, owners.join(", "))
                })
                .collect();
            format!("set the owners of claim {}", claims.join(", "))
        }
        Action::CreateRevision { name, revision, .. } => {
            format!("create revision {name}, number {revision}")
        }
        Action::RenumberRevision { name, revision, .. } => {
            format!("give revision {name} the number {revision}")
        }
        Action::AdoptRevision { name, .. } => format!("adopt revision {name}"),
        Action::DeleteRevision { name, .. } => format!("delete revision {name}"),
        Action::NormalizeRevision { revision, .. } => {
            format!("complete revision {revision} with today's defaults, by a dry run")
        }
        Action::CheckTemplate { revision, .. } => format!("try revision {revision} by a dry run"),
    }
}
