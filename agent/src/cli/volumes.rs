//! `berth-agent volumes`.

use std::{collections::BTreeSet, process::ExitCode};

use berth_api::Bytes;
use berth_provisioner::{Publication, VolumeHealth, VolumeReport};

use super::{
    common::Common,
    table::{or_dash, table},
};

pub(super) fn list(common: &Common) -> anyhow::Result<ExitCode> {
    let mut volumes = common.inspect()?.list();
    sort(&mut volumes);
    common.print(&volumes[..], show)?;
    Ok(ExitCode::SUCCESS)
}

/// Sets together, their ordinals in order.
fn sort(volumes: &mut [VolumeReport]) {
    volumes.sort_by_cached_key(|volume| {
        let claim = volume.claim.clone();
        let namespace = claim.as_ref().map(|claim| claim.namespace.clone());
        let set = volume
            .set
            .as_ref()
            .map(|set| (set.name.clone(), set.ordinal));
        (
            set.is_none(),
            namespace,
            set,
            claim.map(|claim| claim.name),
            volume.id.clone(),
        )
    });
}

/// Pods that have it mounted, as a count and the first one.
fn mounted(volume: &VolumeReport) -> String {
    let pods: BTreeSet<String> = volume.published.iter().map(Publication::user).collect();
    let Some(first) = pods.first() else {
        return "-".to_owned();
    };
    match pods.len() {
        1 => first.clone(),
        more => format!("{first} and {} more", more - 1),
    }
}

fn show(volumes: &[VolumeReport]) -> String {
    if volumes.is_empty() {
        return "no volumes on this node\n".to_owned();
    }
    let mut text = table(
        [
            "SET",
            "ORDINAL",
            "CLAIM",
            "SIZE",
            "USED",
            "POOL",
            "MOUNTED",
            "HOST PATH",
        ],
        volumes.iter().map(|volume| {
            [
                or_dash(volume.set.as_ref().map(|set| set.name.clone())),
                or_dash(volume.set.as_ref().map(|set| set.ordinal.to_string())),
                or_dash(
                    volume
                        .claim
                        .as_ref()
                        .map(|claim| format!("{}/{}", claim.namespace, claim.name)),
                ),
                Bytes(volume.enforced).human(),
                or_dash(volume.used.map(|used| Bytes(used).human())),
                volume.pool.to_string(),
                mounted(volume),
                volume.path.display().to_string(),
            ]
        }),
    );
    for volume in volumes {
        match &volume.health {
            VolumeHealth::Ready => {}
            VolumeHealth::Lost(why) => text.push_str(&format!("\n{}: lost: {why}", volume.id)),
            VolumeHealth::Damaged(why) => {
                text.push_str(&format!("\n{}: damaged: {why}", volume.id));
            }
        }
        for trouble in &volume.troubles {
            text.push_str(&format!("\n{}: {}", volume.id, trouble.message));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata::volume;
    use berth_provisioner::{Problem, ProblemKind};

    #[test]
    fn lists_sets_in_order() {
        let at = |pod: &str| Publication {
            pod_uid: pod.to_owned(),
            pod: String::new(),
            target: format!("/var/lib/kubelet/pods/{pod}/mount").into(),
            readonly: false,
        };
        let mut second = volume();
        if let (Some(set), Some(claim)) = (&mut second.set, &mut second.claim) {
            set.ordinal = 10;
            claim.name = "data-web-10".to_owned();
        }
        second.used = None;
        second.published = vec![at("b"), at("a"), at("a")];
        let mut plain = volume();
        plain.set = None;
        if let Some(claim) = &mut plain.claim {
            claim.name = "scratch".to_owned();
        }
        plain.health = VolumeHealth::Lost("no data directory".to_owned());
        let mut first = volume();
        first.published = vec![at("c")];
        first.troubles = vec![Problem {
            kind: ProblemKind::Full,
            message: "writes will fail soon".to_owned(),
        }];
        let mut volumes = [plain, second, first];
        sort(&mut volumes);
        expect_test::expect![[r#"
            SET   ORDINAL   CLAIM              SIZE   USED   POOL                 MOUNTED            HOST PATH
            web   0         shop/data-web-0    1Gi    64Mi   disk0-0123456789ab   pod c              /var/lib/berth/pools/disk0/volumes/pvc-1/data
            web   10        shop/data-web-10   1Gi    -      disk0-0123456789ab   pod a and 1 more   /var/lib/berth/pools/disk0/volumes/pvc-1/data
            -     -         shop/scratch       1Gi    64Mi   disk0-0123456789ab   -                  /var/lib/berth/pools/disk0/volumes/pvc-1/data

            pvc-1: writes will fail soon
            pvc-1: lost: no data directory"#]].assert_eq(&show(&volumes));
    }
}
