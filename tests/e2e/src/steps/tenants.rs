//! What a person with all rights in one namespace can reach of another namespace's
//! data: nothing. Each way is tried as that person, with the API server's own checks
//! in force.

use anyhow::{Context, Result, bail, ensure};
use berth_api::names;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use super::{
    data::claim_manifest,
    refusal::{expect_event, user_of},
    write,
};
use crate::{
    ctx::Ctx,
    wait::{check, until},
};

/// What the victim keeps.
const SECRET: &str = "nobody-else-reads-this";

/// Somebody who may do everything in a namespace that the usual role `admin` allows,
/// and ask for snapshots there.
pub(super) struct Tenant<'a> {
    ctx: &'a Ctx,
    pub(super) ns: String,
}

impl<'a> Tenant<'a> {
    /// Makes the namespace and its account.
    pub(super) async fn new(ctx: &'a Ctx, ns: &str) -> Result<Self> {
        let ns = format!("{ns}-evil");
        ctx.create_namespace(&ns).await?;
        let account = json!([{"kind": "ServiceAccount", "name": "mallory", "namespace": ns}]);
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "snapshots"},
            "rules": [{
                "apiGroups": ["snapshot.storage.k8s.io"],
                "resources": ["volumesnapshots"],
                "verbs": ["*"],
            }],
        });
        ctx.apply(&ns, &role).await?;
        for (kind, name) in [("ClusterRole", "admin"), ("Role", "snapshots")] {
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": format!("mallory-{name}")},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
                "subjects": account,
            });
            ctx.apply(&ns, &binding).await?;
        }
        Ok(Self { ctx, ns })
    }

    /// Makes an object.
    pub(super) async fn creates(&self, object: &Value) -> Result<()> {
        let user = format!("--as=system:serviceaccount:{}:mallory", self.ns);
        let args = ["-n", &self.ns, &user, "create", "-f", "-"];
        let kubectl = &self.ctx.kubectl;
        kubectl.run_with_input(&args, &object.to_string()).await?;
        Ok(())
    }

    /// Tries to make an object of a kind that is the cluster's.
    pub(super) async fn may_not_create(&self, object: &Value) -> Result<()> {
        let Err(error) = self.creates(object).await else {
            bail!("a person of one namespace may create {object}");
        };
        let text = format!("{error:#}");
        ensure!(text.contains("orbidden"), "{object}: {text}");
        Ok(())
    }

    /// Makes a claim with that source, and a pod that uses it.
    pub(super) async fn wants(&self, name: &str, field: &str, source: Value) -> Result<()> {
        let mut claim = claim_manifest(name, "berth", "64Mi");
        claim["spec"][field] = source;
        self.creates(&claim).await?;
        self.creates(&user_of(name)).await
    }

    /// The claim says why it waits, and nothing was made for it.
    pub(super) async fn gets_nothing(&self, claim: &str, words: &str) -> Result<()> {
        expect_event(self.ctx, &self.ns, claim, words).await?;
        let uid = self.ctx.claims(&self.ns).get(claim).await?.metadata.uid;
        let volume = names::volume_name(&uid.unwrap_or_default());
        let found = self.ctx.volumes().get_opt(&volume).await?;
        ensure!(found.is_none(), "{claim} got {found:?}");
        Ok(())
    }

    /// No link of this namespace leads to the volume on any node; then the namespace
    /// goes.
    pub(super) async fn leaves(self, volume: &str) -> Result<()> {
        let (own, to) = (format!("*/by-claim/{}/*", self.ns), format!("*{volume}*"));
        let find = [
            "find",
            "/var/lib/berth",
            "-maxdepth",
            "3",
            "-path",
            &own,
            "-lname",
            &to,
        ];
        for node in self.ctx.storage_nodes().await? {
            let links = self.ctx.on_node(&node, &find).await?;
            ensure!(links.is_empty(), "{node} has {links}");
        }
        self.ctx.delete_namespace(&self.ns).await
    }
}

/// Each way by which a claim, a pod or an object of one namespace could lead to a
/// volume of another.
pub async fn another_namespaces_data_is_out_of_reach(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &claim_manifest("victim", "berth", "32Mi"))
        .await?;
    ctx.apply(ns, &user_of("victim")).await?;
    ctx.wait_ready(ns, &["user-of-victim"]).await?;
    write(ctx, ns, "user-of-victim", "/data/secret", SECRET).await?;
    let volume = ctx.volume_of(ns, "victim").await?;
    let name = volume.metadata.name.clone();
    let name = name.context("a stored Volume has a name")?;
    let mallory = Tenant::new(ctx, ns).await?;
    let copy_of = |claim: &str| json!({"kind": "PersistentVolumeClaim", "name": claim});

    // A claim that names the victim's PersistentVolume is not bound to it, and is no
    // source: not as it is, and not with the marks of a bound one.
    let mut thief = claim_manifest("thief", "berth", "32Mi");
    thief["spec"]["volumeName"] = json!(name);
    mallory.creates(&thief).await?;
    thief["metadata"] = json!({"name": "forger", "annotations": {
        "pv.kubernetes.io/bind-completed": "yes",
        "pv.kubernetes.io/bound-by-controller": "yes",
        names::STORAGE_PROVISIONER: berth_api::DRIVER,
        names::SELECTED_NODE: volume.spec.node,
    }});
    mallory.creates(&thief).await?;
    for source in ["thief", "forger"] {
        let loot = format!("loot-of-{source}");
        mallory.wants(&loot, "dataSource", copy_of(source)).await?;
        let words = format!("claim {source}, to be bound");
        mallory.gets_nothing(&loot, &words).await?;
    }

    // A source in another namespace, which the API server drops where the gate
    // CrossNamespaceVolumeDataSource is off: the volume is then an empty one.
    let mut far = copy_of("victim");
    far["namespace"] = json!(ns);
    mallory.wants("far", "dataSourceRef", far).await?;
    ctx.wait_ready(&mallory.ns, &["user-of-far"]).await?;
    let list = "ls -A /data";
    let found = ctx.kubectl.shell(&mallory.ns, "user-of-far", list).await?;
    ensure!(found.is_empty(), "the copy from afar holds {found:?}");

    // A volume of the pod's own that is no claim.
    let mut inline = user_of("inline");
    inline["spec"]["volumes"][0] = json!({"name": "data", "csi": {
        "driver": berth_api::DRIVER,
        "volumeAttributes": {"volume": name, names::ATTRIBUTE_POOL: volume.spec.pool},
    }});
    mallory.creates(&inline).await?;
    expect_event(ctx, &mallory.ns, "user-of-inline", "Ephemeral").await?;

    objects_of_the_cluster(&mallory, &volume, &name).await?;
    static_volume(ctx, &mallory, &name).await?;
    mallory.leaves(&name).await
}

/// What names a volume directly is the cluster's to make.
async fn objects_of_the_cluster(
    mallory: &Tenant<'_>,
    volume: &berth_api::Volume,
    name: &str,
) -> Result<()> {
    let berth = format!("{}/{}", berth_api::GROUP, berth_api::VERSION);
    let (pool, node) = (&volume.spec.pool, &volume.spec.node);
    let own = format!("{}-own", mallory.ns);
    let volume = json!({
        "apiVersion": berth, "kind": "Volume", "metadata": {"name": own},
        "spec": {
            "pool": pool, "node": node, "size": "64Mi",
            "claim": {"namespace": mallory.ns, "name": "mine", "uid": "u"},
            "source": {"volume": name},
        },
    });
    let snapshot = json!({
        "apiVersion": berth, "kind": "Snapshot", "metadata": {"name": own},
        "spec": {
            "volume": name, "pool": pool, "node": node,
            "content": {"name": own, "uid": "u", "namespace": mallory.ns, "snapshot": "mine"},
        },
    });
    let pv = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": own},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "32Mi"},
            "csi": {"driver": berth_api::DRIVER, "volumeHandle": name},
        },
    });
    for object in [volume, snapshot, pv] {
        mallory.may_not_create(&object).await?;
    }
    Ok(())
}

/// Ways by which a VolumeSnapshot of one namespace could lead to the data of another,
/// whose VolumeSnapshot is bound to `content`.
pub(super) async fn snapshots_are_out_of_reach(
    ctx: &Ctx,
    ns: &str,
    class: &str,
    victim: &str,
    content: &str,
) -> Result<()> {
    let mallory = Tenant::new(ctx, ns).await?;
    let request = |name: &str, source: Value| {
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": {"name": name},
            "spec": {"volumeSnapshotClassName": class, "source": source},
        })
    };
    let mut thief = claim_manifest("thief", "berth", "32Mi");
    thief["spec"]["volumeName"] = json!(victim);
    mallory.creates(&thief).await?;
    let of_thief = json!({"persistentVolumeClaimName": "thief"});
    let of_content = json!({"volumeSnapshotContentName": content});
    for (name, source) in [("of-thief", of_thief), ("of-content", of_content)] {
        mallory.creates(&request(name, source)).await?;
        let loot = format!("loot-{name}");
        let source = json!({
            "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name,
        });
        mallory.wants(&loot, "dataSource", source).await?;
        let words = format!("VolumeSnapshot {name}");
        mallory.gets_nothing(&loot, &words).await?;
    }
    let own = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": format!("{}-own", mallory.ns)},
        "spec": {
            "driver": berth_api::DRIVER, "deletionPolicy": "Retain",
            "source": {"volumeHandle": victim},
            "volumeSnapshotRef": {"namespace": mallory.ns, "name": "mine"},
        },
    });
    mallory.may_not_create(&own).await?;
    mallory.leaves(victim).await
}

/// An administrator made a second PersistentVolume of the victim's volume and gave it
/// to another namespace: a mistake, which is told, and which no copy is made of.
async fn static_volume(ctx: &Ctx, mallory: &Tenant<'_>, handle: &str) -> Result<()> {
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let original = pvs.get(handle).await?;
    let twin = format!("{}-twin", mallory.ns);
    let mut spec = json!(original.spec.context("a PersistentVolume has a spec")?);
    spec["claimRef"] = json!({"namespace": mallory.ns, "name": "given"});
    spec["persistentVolumeReclaimPolicy"] = json!("Retain");
    let pv = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": twin}, "spec": spec,
    });
    ctx.apply(&mallory.ns, &pv).await?;
    let mut given = claim_manifest("given", "berth", "32Mi");
    given["spec"]["volumeName"] = json!(twin);
    mallory.creates(&given).await?;
    until("the claim to be bound to the twin", async || {
        let claim = ctx.claims(&mallory.ns).get("given").await?;
        let phase = claim.status.and_then(|s| s.phase).unwrap_or_default();
        check(phase == "Bound", || phase)
    })
    .await?;
    let mut pod = super::refusal::user_of("given");
    pod["metadata"]["name"] = json!("user-of-twin");
    ctx.apply(&mallory.ns, &pod).await?;
    super::refusal::expect_event(ctx, &mallory.ns, "user-of-twin", "of another namespace").await?;
    ctx.pods(&mallory.ns)
        .delete("user-of-twin", &DeleteParams::default())
        .await?;
    let source = json!({"kind": "PersistentVolumeClaim", "name": "given"});
    mallory.wants("loot-of-given", "dataSource", source).await?;
    mallory
        .gets_nothing("loot-of-given", "to be known as its volume's")
        .await?;
    pvs.delete(&twin, &DeleteParams::default()).await?;
    ctx.claims(&mallory.ns)
        .delete("given", &DeleteParams::default())
        .await?;
    until("the twin to be gone", async || {
        let list = pvs.list(&ListParams::default()).await?.items;
        let left = list
            .iter()
            .any(|pv| pv.metadata.name.as_ref() == Some(&twin));
        check(!left, || format!("{twin} is still there"))
    })
    .await
}
