//! `berth-agent inspect`.

use std::process::ExitCode;

use anyhow::bail;
use berth_api::Bytes;
use berth_provisioner::{VolumeHealth, VolumeMode, VolumeReport};

use super::common::Common;

pub(super) fn show(volume: &str, common: &Common) -> anyhow::Result<ExitCode> {
    let found = pick(volume, common.inspect()?.list());
    match &found[..] {
        [] => {
            bail!("no volume on this node is {volume:?}; `berth-agent volumes` lists what there is")
        }
        [one] => common.print(one, describe)?,
        // A claim that was deleted with its data kept, and made again.
        several => common.print(several, |several| {
            several.iter().map(describe).collect::<Vec<_>>().join("\n")
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

fn pick(wanted: &str, volumes: Vec<VolumeReport>) -> Vec<VolumeReport> {
    volumes
        .into_iter()
        .filter(|volume| match wanted.split_once('/') {
            Some((namespace, name)) => volume
                .claim
                .as_ref()
                .is_some_and(|claim| claim.namespace == namespace && claim.name == name),
            None => volume.id == wanted,
        })
        .collect()
}

fn describe(volume: &VolumeReport) -> String {
    let mut lines: Vec<(&str, String)> = vec![("Volume", volume.id.clone())];
    let state = match &volume.health {
        VolumeHealth::Ready => "Ready".to_owned(),
        VolumeHealth::Lost(why) => format!("Lost: {why}"),
        VolumeHealth::Damaged(why) => format!("Damaged: {why}"),
    };
    lines.push(("State", state));
    if let Some(claim) = &volume.claim {
        lines.push(("Claim", format!("{}/{}", claim.namespace, claim.name)));
        lines.push(("Claim UID", claim.uid.clone()));
    }
    if let Some(set) = &volume.set {
        lines.push(("Set", format!("{} {}", set.kind, set.name)));
        lines.push(("Ordinal", set.ordinal.to_string()));
    }
    let exact = |bytes: u64| format!("{} ({bytes} bytes)", Bytes(bytes).human());
    lines.push(("Size", exact(volume.enforced)));
    if volume.enforced != volume.size {
        lines.push(("Asked for", exact(volume.size)));
    }
    if let Some(used) = volume.used {
        lines.push(("Used", exact(used)));
    }
    let mode = match volume.mode {
        VolumeMode::Filesystem => "Filesystem",
        VolumeMode::Block => "Block",
    };
    lines.push(("Mode", mode.to_owned()));
    lines.push(("Backend", volume.backend.to_string()));
    lines.push(("Pool", volume.pool.to_string()));
    lines.push(("Host path", volume.path.display().to_string()));
    lines.push(("Created", volume.created.clone()));
    for staging in &volume.staged {
        lines.push(("Staged at", staging.display().to_string()));
    }
    for publication in &volume.published {
        let mut pod = publication.user();
        if !publication.pod.is_empty() {
            pod += &format!(" (UID {})", publication.pod_uid);
        }
        let readonly = if publication.readonly {
            ", read-only"
        } else {
            ""
        };
        lines.push((
            "Mounted by",
            format!("{pod} at {}{readonly}", publication.target.display()),
        ));
    }
    lines
        .into_iter()
        .map(|(name, value)| format!("{name:<12}{value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata::volume;
    use berth_provisioner::Publication;

    #[test]
    fn describes_one_volume() {
        let mut small = volume();
        small.size = 1 << 20;
        small.enforced = 16 << 20;
        small.published = vec![Publication {
            pod_uid: "9c1f".to_owned(),
            pod: String::new(),
            target: "/var/lib/kubelet/pods/9c1f/mount".into(),
            readonly: true,
        }];
        small.staged = vec!["/var/lib/kubelet/plugins/globalmount".into()];
        expect_test::expect![[r#"
            Volume      pvc-1
            State       Ready
            Claim       shop/data-web-0
            Claim UID   1
            Set         OrdinalSet web
            Ordinal     0
            Size        16Mi (16777216 bytes)
            Asked for   1Mi (1048576 bytes)
            Used        64Mi (67108864 bytes)
            Mode        Filesystem
            Backend     btrfs
            Pool        disk0-0123456789ab
            Host path   /var/lib/berth/pools/disk0/volumes/pvc-1/data
            Created     2026-01-02T03:04:05Z
            Staged at   /var/lib/kubelet/plugins/globalmount
            Mounted by  pod 9c1f at /var/lib/kubelet/pods/9c1f/mount, read-only
        "#]]
        .assert_eq(&describe(&small));
    }

    #[test]
    fn finds_by_id_and_by_claim() {
        let count = |wanted: &str| pick(wanted, vec![volume()]).len();
        assert_eq!([count("pvc-1"), count("shop/data-web-0")], [1, 1]);
        assert_eq!(
            [
                count("pvc-2"),
                count("data-web-0"),
                count("other/data-web-0")
            ],
            [0, 0, 0]
        );
    }
}
