//! Labels, annotations, finalizers, condition types and reasons: every name that
//! appears in the cluster and is read by more than one program or by people. StorageClass
//! parameters are in [`berth_model::class_parameters`].

use berth_model::{SnapshotName, VolumeName};

/// Node label, published by kubelet from NodeGetInfo; its value is the node's
/// name. CSIStorageCapacity objects select by it.
pub const TOPOLOGY_NODE: &str = "topology.berth.dev/node";

/// Prefix of the node label that says "this pool is here". The controller alone
/// sets and removes it; PV node affinity names it.
pub const POOL_LABEL_PREFIX: &str = "pool.berth.dev/";

/// Value of a pool label.
pub const POOL_LABEL_VALUE: &str = "present";

/// The node label of the pool `id`.
pub fn pool_label(id: &str) -> String {
    format!("{POOL_LABEL_PREFIX}{id}")
}

/// Name of the Volume, of the PV and of the volume handle of a claim; see
/// [`VolumeName`], which has the way back.
pub fn volume_name(claim_uid: &str) -> String {
    VolumeName::of_claim(claim_uid).into()
}

/// Name of the Snapshot, of the snapshot handle and of the snapshot on the disk, from
/// the UID of its VolumeSnapshotContent; see [`SnapshotName`].
pub fn snapshot_name(content_uid: &str) -> String {
    SnapshotName::of_content(content_uid).into()
}

/// Finalizer on PVs: the data is dealt with before the object goes. It is the
/// name that the external provisioner uses, so kube-controller-manager's
/// reclaim-policy handling knows it.
pub const PV_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// PV annotation that names the provisioner.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Claim annotation in which the scheduler names the node that it picked.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Claim annotation that names the class, from before there was a field for it.
pub const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Claim annotation by which kube-controller-manager hands a claim to a provisioner.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";

/// The older form of [`STORAGE_PROVISIONER`], still set beside it.
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";

/// Volume attribute of a PV: the pool that holds the volume.
pub const ATTRIBUTE_POOL: &str = "berth.dev/pool";

/// Volume attribute of a PV: kind of the set, so that a Volume can be recreated
/// from its PV alone.
pub const ATTRIBUTE_SET_KIND: &str = "berth.dev/set-kind";

/// Volume attribute of a PV: name of the set.
pub const ATTRIBUTE_SET: &str = "berth.dev/set";

/// Volume attribute of a PV: the replica's number in the set.
pub const ATTRIBUTE_ORDINAL: &str = "berth.dev/ordinal";

/// Volume attribute of a PV: backend that made the volume.
pub const ATTRIBUTE_BACKEND: &str = "berth.dev/backend";

/// Annotation on Volumes and Snapshots that means the same as `spec.exposed`, on objects that
/// were made before there was that field. It is read, and never written.
pub const EXPOSED: &str = "berth.dev/exposed";

/// Label on Volume objects: the claim's namespace.
pub const LABEL_CLAIM_NAMESPACE: &str = "berth.dev/claim-namespace";

/// Label on Volume objects: the set's name (only when it is a valid label value).
pub const LABEL_SET: &str = "berth.dev/set";

/// Labels that StatefulSet puts on its pods; OrdinalSet puts the same.
pub mod pod {
    /// The pod's own name, for a Service per pod.
    pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
    /// The ordinal.
    pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
    /// Annotation that voids an earlier permission to take the pod down for a rollout:
    /// the resourceVersion that the permission was for.
    pub const KEPT: &str = "berth.dev/kept";
    /// Name of the ControllerRevision that the pod was made from.
    pub const REVISION: &str = "controller-revision-hash";
    /// Hash label of a ControllerRevision.
    pub const REVISION_HASH: &str = "controller.kubernetes.io/hash";
}

/// What upstream's snapshot-controller and the driver's side say to each other on a
/// VolumeSnapshotContent (`pkg/utils/util.go` of external-snapshotter), and what
/// Berth adds.
pub mod content {
    /// Finalizer, set by the snapshot-controller and removed by the driver's side once
    /// the snapshot is dealt with.
    pub const FINALIZER: &str =
        "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
    /// Annotation by the snapshot-controller: the VolumeSnapshot is being deleted, so
    /// the content may go.
    pub const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
    /// Annotation by upstream's sidecar while it is not known whether a snapshot was
    /// taken. Berth does not need it, since the Snapshot object is there first. One that a
    /// sidecar left blocks deletions, and is removed once the answer is known.
    pub const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
    /// Annotation on members of group snapshots.
    pub const GROUP_MEMBER: &str = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle";
    /// Prefix of a class's parameters that are not for the driver.
    pub const SIDECAR_PARAMETERS: &str = "csi.storage.k8s.io/";
    /// Annotation by Berth: the pool that holds the snapshot, so that a Snapshot can
    /// be recreated from its content.
    pub const POOL: &str = "berth.dev/pool";
    /// Annotation by Berth: the volume that the snapshot is of, for the same purpose.
    pub const VOLUME: &str = "berth.dev/volume";
}

/// Condition types.
pub mod condition {
    /// Pool, Volume: usable now. Set: as its spec says, as far as nobody holds it back.
    pub const READY: &str = "Ready";
    /// Pool: no other place reports the same pool.
    pub const UNIQUE: &str = "Unique";
    /// Pool: every volume on the disk has a Volume object.
    pub const ACCOUNTED: &str = "Accounted";
    /// Set: every replica is available, but for those that a rollout replaces within its
    /// budget; of whatever revision.
    pub const AVAILABLE: &str = "Available";
    /// Set: work is under way or done, and nothing blocks it.
    pub const PROGRESSING: &str = "Progressing";
    /// Set: work is under way (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// Set: nothing goes on without a person, or nothing went on for
    /// progressDeadlineSeconds (kstatus).
    pub const STALLED: &str = "Stalled";
    /// Set: something waits; the message names the object, what it waits for and
    /// what to do.
    pub const WAITING: &str = "Waiting";
    /// Set: the template would be refused by the API server.
    pub const TEMPLATE_REFUSED: &str = "TemplateRefused";
    /// Set: `rollbackTo` is in force, and `template` is not what the pods get.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// Native StatefulSet: pods that a rollout may take down now, claimed by a
    /// write that carries the set's resourceVersion (an OrdinalSet has a field
    /// of its status for them).
    pub const DISRUPTING: &str = "BerthDisrupting";
    /// Volume: the size is enforced by the filesystem.
    pub const LIMITED: &str = "Limited";
    /// Pool, Volume: nothing is known to be wrong with the disk, the filesystem or
    /// its space. It may be usable all the same.
    pub const HEALTHY: &str = "Healthy";
    /// Pool: no new volume fits. Volume: writes will soon fail.
    pub const FULL: &str = "Full";
}

/// Reasons of conditions and events.
pub mod reason {
    /// The pool is granted to its node and writable.
    pub const GRANTED: &str = "Granted";
    /// Two places report one pool id.
    pub const CONFLICT: &str = "Conflict";
    /// The pool's directory is not the mount that it was registered as.
    pub const LOST_MOUNT: &str = "LostMount";
    /// No node reports the pool.
    pub const MISSING: &str = "Missing";
    /// There are volumes on the disk that no Volume object names.
    pub const ORPHANS: &str = "Orphans";
    /// The pool's node is not ready.
    pub const NODE_NOT_READY: &str = "NodeNotReady";
    /// The pool is read-only or answers with I/O errors.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// A person cordoned the pool.
    pub const CORDONED: &str = "Cordoned";
    /// A person declared the pool permanently lost.
    pub const DECLARED_LOST: &str = "DeclaredLost";
    /// No pool on the node has room for the claim.
    pub const NO_ROOM: &str = "NoRoom";
    /// The volume's data is not where the records say.
    pub const DATA_LOST: &str = "DataLost";
    /// A foreign object has the name that an ordinal needs.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// Another controller writes the status of the set.
    pub const STANDS_DOWN: &str = "StandsDown";
    /// Something is wrong with a claim's volume, which can be used all the same.
    pub const VOLUME_UNHEALTHY: &str = "VolumeUnhealthy";
    /// A claim's volume will soon refuse writes.
    pub const VOLUME_FULL: &str = "VolumeFull";
    /// A claim is being provisioned.
    pub const PROVISIONING: &str = "Provisioning";
    /// A claim's volume could not be made.
    pub const PROVISIONING_FAILED: &str = "ProvisioningFailed";
    /// A claim's volume is ready.
    pub const PROVISIONING_SUCCEEDED: &str = "ProvisioningSucceeded";
    /// A snapshot was taken.
    pub const SNAPSHOT_TAKEN: &str = "SnapshotTaken";
    /// A snapshot could not be taken, or cannot be used.
    pub const SNAPSHOT_FAILED: &str = "SnapshotFailed";
}
