//! What a person would look at first when something went wrong.

use crate::ctx::{Ctx, SYSTEM};

/// Sets, pods, claims and events of a namespace, pools, and Berth's last words.
pub async fn of(ctx: &Ctx, ns: &str) -> String {
    let controllers = "app.kubernetes.io/name=berth-controller";
    let agents = "app.kubernetes.io/name=berth-agent";
    let looks: &[&[&str]] = &[
        &["-n", ns, "get", "oset,sts,pods,pvc", "-o", "wide"],
        &["get", "bvol,bsnap,bpool,bnode", "-o", "wide"],
        &["-n", ns, "get", "events", "--sort-by=.lastTimestamp"],
        &["-n", SYSTEM, "get", "pods", "-o", "wide"],
        &["-n", SYSTEM, "logs", "-l", controllers, "--tail=40"],
        &["-n", SYSTEM, "logs", "-l", agents, "--tail=20"],
    ];
    let mut text = String::new();
    for look in looks {
        text += &format!("--- kubectl {}\n", look.join(" "));
        let answer = ctx.kubectl.run(look).await;
        text += &answer.unwrap_or_else(|e| format!("{e:#}\n"));
    }
    text
}
