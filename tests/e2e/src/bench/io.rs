//! fio through a volume of each backend that a node has, beside a bare file in the same
//! pool's directory and beside a volume of local-path-provisioner, by turns.

use anyhow::{Context, Result, ensure};
use berth_api::Pool;
use berth_cluster::progress;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

use super::{
    NAMESPACE, bursts,
    fio::{Fio, JOBS},
    local_path,
    stats::{median, ratios, spread},
    table::{self, Table},
};
use crate::{
    ctx::{Ctx, uid_of},
    steps::{
        data::{claim_manifest, class_manifest},
        refusal::user_of,
    },
};

/// Directory of the bare files in a pool's directory.
const BARE: &str = "berth-bench-bare";

/// A pool, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Name of the Pool object.
    pub pool: String,
    /// Its node.
    pub node: String,
    /// Its directory there.
    pub path: String,
    /// Its filesystem.
    pub filesystem: String,
}

/// Every pool that a node has, sorted by node and directory.
///
/// # Errors
/// The API server's.
pub async fn disks(ctx: &Ctx) -> Result<Vec<Disk>> {
    let pools: Api<Pool> = Api::all(ctx.client.clone());
    let found = pools.list(&ListParams::default()).await?.items.into_iter();
    let mut disks: Vec<_> = found
        .filter_map(|pool| {
            let status = pool.status?;
            Some(Disk {
                pool: pool.metadata.name?,
                node: status.node?,
                path: status.path?,
                filesystem: status.filesystem?,
            })
        })
        .collect();
    disks.sort_by(|a, b| (&a.node, &a.path).cmp(&(&b.node, &b.path)));
    Ok(disks)
}

/// Lets new volumes go to these pools only.
///
/// # Errors
/// The API server's.
pub async fn only(ctx: &Ctx, disks: &[Disk], wanted: impl Fn(&Disk) -> bool) -> Result<()> {
    let pools: Api<Pool> = Api::all(ctx.client.clone());
    for disk in disks {
        let patch = json!({"spec": {"cordoned": !wanted(disk)}});
        pools
            .patch(&disk.pool, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    Ok(())
}

/// Figures of one place, beside a bare file on the same disk.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// What it is, such as `image on btrfs`.
    pub title: String,
    /// Whether it is an image behind a loop device.
    pub image: bool,
    /// Whether it is Berth's.
    pub ours: bool,
    #[serde(skip)]
    file: String,
    #[serde(skip)]
    bare: String,
    /// One list per job, one figure per repeat.
    pub figures: Vec<Vec<f64>>,
    /// The same of the bare file.
    pub bare_figures: Vec<Vec<f64>>,
}

impl Place {
    fn new(title: String, image: bool, ours: bool, file: String, disk: &Disk) -> Self {
        Self {
            title,
            image,
            ours,
            file,
            bare: format!("{}/{BARE}/file", disk.path),
            figures: vec![Vec::new(); JOBS.len()],
            bare_figures: vec![Vec::new(); JOBS.len()],
        }
    }

    /// The median of the ratios of a job, volume to bare file.
    pub fn ratio(&self, job: usize) -> Option<f64> {
        median(&ratios(self.figures.get(job)?, self.bare_figures.get(job)?))
    }
}

/// How much is moved.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// MiB of each file.
    pub mib: u64,
    /// Seconds of each run.
    pub seconds: u64,
    /// Runs of each job and place.
    pub repeats: usize,
}

/// Measures the volumes of one node.
///
/// # Errors
/// When volumes cannot be made, or fio fails.
pub async fn run(ctx: &Ctx, disks: &[Disk], node: &str, amount: Amount) -> Result<Vec<Place>> {
    progress::say("fio: making volumes");
    let fio = Fio::bring(ctx, node).await?;
    let mut places = places(ctx, disks, node, amount.mib).await?;
    for place in &places {
        fio.lay_out(&place.file, amount.mib).await?;
        fio.lay_out(&place.bare, amount.mib).await?;
    }
    for repeat in 1..=amount.repeats {
        for (number, job) in JOBS.into_iter().enumerate() {
            progress::say(format!(
                "fio: {repeat} of {}, {}",
                amount.repeats, job.title
            ));
            for place in &mut places {
                let mut pair = [
                    (&place.bare, &mut place.bare_figures),
                    (&place.file, &mut place.figures),
                ];
                // Whichever comes second would always find what the first left behind.
                if repeat % 2 == 0 {
                    pair.reverse();
                }
                for (file, figures) in pair {
                    // Only these two: the machine has other disks, and others write to them.
                    ctx.on_node(node, &["sync", "-f", &place.bare, &place.file])
                        .await?;
                    let figure = fio.measure(job, file, amount.mib, amount.seconds).await?;
                    figures[number].push(figure);
                }
            }
        }
    }
    for disk in disks.iter().filter(|disk| disk.node == node) {
        let bare = format!("{}/{BARE}", disk.path);
        ctx.on_node(node, &["rm", "-rf", &bare]).await?;
    }
    fio.remove().await?;
    bursts::delete(ctx).await?;
    for class in CLASSES {
        let delete = ["delete", "--ignore-not-found", "storageclass", class];
        ctx.kubectl.run(&delete).await?;
    }
    Ok(places)
}

/// Classes that are made for this: of Berth's subvolumes, and of local-path's volumes in one
/// directory.
const CLASSES: [&str; 2] = ["berth-bench-btrfs", "local-path-one"];

/// The volumes, mounted on the node by pods: on one disk of each filesystem what Berth makes
/// by itself, on btrfs a subvolume too, and one of local-path-provisioner on the first.
async fn places(ctx: &Ctx, disks: &[Disk], node: &str, mib: u64) -> Result<Vec<Place>> {
    let parameters = json!({"backend": "btrfs"});
    let class = class_manifest(CLASSES[0], parameters, "Delete");
    ctx.apply(NAMESPACE, &class).await?;
    let mut kinds: Vec<&Disk> = Vec::new();
    for disk in disks.iter().filter(|disk| disk.node == node) {
        if kinds.iter().all(|kind| kind.filesystem != disk.filesystem) {
            kinds.push(disk);
        }
    }
    let first = *kinds
        .first()
        .with_context(|| format!("{node} has no pool"))?;
    let mut places = Vec::new();
    for disk in kinds {
        let bare = format!("{}/{BARE}", disk.path);
        ctx.on_node(node, &["mkdir", "-p", &bare]).await?;
        only(ctx, disks, |other| other.pool == disk.pool).await?;
        let subvolume = (disk.filesystem == "btrfs").then_some(CLASSES[0]);
        for class in ["berth"].into_iter().chain(subvolume) {
            let claim = format!("fio-{}-{class}", disk.filesystem);
            let dir = mounted(ctx, node, &claim, class, mib).await?;
            let volume = ctx.volume_of(NAMESPACE, &claim).await?;
            let backend = volume.status.and_then(|status| status.backend);
            let backend = backend.context("a Volume that is mounted has a backend")?;
            let title = match subvolume.filter(|s| *s == class) {
                Some(_) => "btrfs subvolume".to_owned(),
                None => format!("{backend} on {}", disk.filesystem),
            };
            let image = backend == berth_api::Backend::Image;
            places.push(Place::new(title, image, true, format!("{dir}/file"), disk));
        }
    }
    let path = format!("{}/{}", first.path, local_path::DIR);
    let class = local_path::class(CLASSES[1], Some(&path));
    ctx.apply(NAMESPACE, &class).await?;
    let dir = mounted(ctx, node, "fio-local-path", CLASSES[1], mib).await?;
    let title = format!("local-path on {}", first.filesystem);
    places.push(Place::new(
        title,
        false,
        false,
        format!("{dir}/file"),
        first,
    ));
    Ok(places)
}

/// Makes a claim with a pod on a node; where the volume is mounted there.
async fn mounted(ctx: &Ctx, node: &str, claim: &str, class: &str, mib: u64) -> Result<String> {
    // A filesystem in an image takes some for itself.
    let size = format!("{}Mi", mib + mib / 4 + 64);
    ctx.apply(NAMESPACE, &claim_manifest(claim, class, &size))
        .await?;
    let mut pod = user_of(claim);
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    ctx.apply(NAMESPACE, &pod).await?;
    let name = format!("user-of-{claim}");
    let pods = ctx.wait_ready(NAMESPACE, &[&name]).await?;
    let pod = pods.get(&name).context("a pod that is ready exists")?;
    let bound = ctx.claims(NAMESPACE).get(claim).await?;
    let pv = bound.spec.and_then(|spec| spec.volume_name);
    let pv = pv.context("a claim that is mounted has a PV")?;
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let spec = pvs.get(&pv).await?.spec.unwrap_or_default();
    if let Some(host) = spec.host_path {
        return Ok(host.path);
    }
    let dir = format!(
        "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/{pv}/mount",
        uid_of(pod)
    );
    let mounts = ctx.on_node(node, &["cat", "/proc/self/mountinfo"]).await?;
    ensure!(
        mounts.contains(&dir),
        "nothing is mounted at {dir} of {node}"
    );
    Ok(dir)
}

/// The least of Berth's ratios, of images or of all else.
pub fn least(places: &[Place], images: bool) -> Option<f64> {
    let places = places.iter().filter(|p| p.ours && p.image == images);
    let ratios = places.flat_map(|place| (0..JOBS.len()).filter_map(|job| place.ratio(job)));
    ratios.reduce(f64::min)
}

/// The table.
pub fn table(places: &[Place]) -> Table {
    let mut table = Table::new(&[
        "fio; median (min-max)",
        "unit",
        "volume",
        "bare file",
        "volume / bare",
    ]);
    for place in places {
        for (number, job) in JOBS.into_iter().enumerate() {
            let of = |figures: &[Vec<f64>]| figures.get(number).and_then(|f| spread(f));
            table.row(vec![
                format!("{}: {}", place.title, job.title),
                job.unit.to_owned(),
                table::spread(of(&place.figures)),
                table::spread(of(&place.bare_figures)),
                table::spread(spread(&ratios(
                    &place.figures[number],
                    &place.bare_figures[number],
                ))),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_the_rest_are_judged_apart() {
        let disk = Disk {
            pool: "p".to_owned(),
            node: "n".to_owned(),
            path: "/p".to_owned(),
            filesystem: "xfs".to_owned(),
        };
        let place = |image, ours, figure: f64| {
            let mut place = Place::new("t".to_owned(), image, ours, "/f".to_owned(), &disk);
            place.figures[1] = vec![figure, figure];
            place.bare_figures[1] = vec![2.0, 1.0];
            place
        };
        let all = [
            place(true, true, 1.0),
            place(false, true, 2.0),
            place(false, false, 0.1),
        ];
        assert_eq!(all[0].ratio(1), Some(0.75));
        assert_eq!(all[0].ratio(0), None);
        assert_eq!(
            (least(&all, true), least(&all, false)),
            (Some(0.75), Some(1.5))
        );
        let text = table(&all).to_string();
        assert!(text.contains("0.75 (0.50-1.00)"), "{text}");
    }
}
