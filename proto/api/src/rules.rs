//! The rules that the API server holds sets to (CEL): each names the field and
//! says what to do. What they come from is upstream's validation
//! (`pkg/apis/apps/validation`, `pkg/apis/core/validation`); the end-to-end tests
//! try them beside `apps/v1` itself.
//!
//! The API server estimates what a rule costs from the largest object that could
//! come, and refuses a definition whose rules could cost too much. So there are no
//! rules over the lists of a pod's spec: what is wrong in there shows when the pod
//! is made, and becomes a condition of the set.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// The claims as they were. What a live object shows beside what is compared here
/// (status, creationTimestamp, kind) is not the claim.
const CLAIMS_STAY: &str = "\
    (has(self.volumeClaimTemplates) ? size(self.volumeClaimTemplates) : 0) == (has(oldSelf.volumeClaimTemplates) ? size(oldSelf.volumeClaimTemplates) : 0) && \
    (!has(self.volumeClaimTemplates) || self.volumeClaimTemplates.all(i, c, c.spec == oldSelf.volumeClaimTemplates[i].spec && \
    c.metadata.name == oldSelf.volumeClaimTemplates[i].metadata.name && \
    has(c.metadata.labels) == has(oldSelf.volumeClaimTemplates[i].metadata.labels) && \
    (!has(c.metadata.labels) || c.metadata.labels == oldSelf.volumeClaimTemplates[i].metadata.labels) && \
    has(c.metadata.annotations) == has(oldSelf.volumeClaimTemplates[i].metadata.annotations) && \
    (!has(c.metadata.annotations) || c.metadata.annotations == oldSelf.volumeClaimTemplates[i].metadata.annotations)))";

/// Fields of the spec that may change after creation.
const MUTABLE: &str = "replicas, ordinals, template, updateStrategy, revisionHistoryLimit, persistentVolumeClaimRetentionPolicy, minReadySeconds, progressDeadlineSeconds, rollbackTo and restartedAt";

fn rules(rules: &[(&str, &str)]) -> Value {
    let rule = |(rule, message): &(&str, &str)| json!({"rule": rule, "message": message});
    rules.iter().map(rule).collect()
}

/// On the whole object: pods carry `<name>-<10 characters>`, their revision, as a
/// label value of at most 63 characters.
pub(crate) fn set_name() -> Value {
    rules(&[
        (
            "size(self.metadata.name) <= 52",
            "metadata.name has more than 52 characters: pods carry <name>-<10 characters> in a label, which holds 63, so none could be created; choose a shorter name",
        ),
        (
            "!self.metadata.name.contains('.')",
            "metadata.name must be a DNS label, without dots: it becomes part of each pod's hostname",
        ),
    ])
}

/// On the spec: what two fields together may say, and what stays as it was.
pub(crate) fn set_spec() -> Value {
    const LABELS: &str = "has(self.template.metadata) && has(self.template.metadata.labels)";
    const MISMATCH: &str = "selector does not match template.metadata.labels: the set could not find its own pods; give the template the labels that the selector asks for";
    let match_labels = format!(
        "!has(self.selector.matchLabels) || size(self.selector.matchLabels) == 0 || ({LABELS} && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))"
    );
    let holds = "\
        e.operator == 'In' ? (e.key in self.template.metadata.labels && has(e.values) && self.template.metadata.labels[e.key] in e.values) : \
        e.operator == 'NotIn' ? !(e.key in self.template.metadata.labels && has(e.values) && self.template.metadata.labels[e.key] in e.values) : \
        e.operator == 'Exists' ? e.key in self.template.metadata.labels : \
        !(e.key in self.template.metadata.labels)";
    let match_expressions = format!(
        "!has(self.selector.matchExpressions) || ({LABELS} ? self.selector.matchExpressions.all(e, {holds}) : self.selector.matchExpressions.all(e, e.operator in ['NotIn', 'DoesNotExist']))"
    );
    let mut all = vec![
        (
            "(has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0) || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)".to_owned(),
            "selector is empty: it would select every pod of the namespace; name a label that only this set's pods have".to_owned(),
        ),
        (match_labels, MISMATCH.to_owned()),
        (match_expressions, MISMATCH.to_owned()),
        (
            "!has(self.updateStrategy) || !has(self.updateStrategy.rollingUpdate) || self.updateStrategy.type == 'RollingUpdate'".to_owned(),
            "updateStrategy.rollingUpdate is only for type RollingUpdate; take it away, or change the type".to_owned(),
        ),
    ];
    for (field, unchanged) in [
        ("selector", "self.selector == oldSelf.selector"),
        (
            "serviceName",
            "(has(self.serviceName) ? self.serviceName : '') == (has(oldSelf.serviceName) ? oldSelf.serviceName : '')",
        ),
        (
            "podManagementPolicy",
            "has(self.podManagementPolicy) == has(oldSelf.podManagementPolicy) && (!has(self.podManagementPolicy) || self.podManagementPolicy == oldSelf.podManagementPolicy)",
        ),
        ("volumeClaimTemplates", CLAIMS_STAY),
    ] {
        all.push((
            unchanged.to_owned(),
            format!("{field} cannot be changed, only {MUTABLE} can; to change it, delete the set with --cascade=orphan and create it again: pods, claims and data stay"),
        ));
    }
    let all: Vec<(&str, &str)> = all.iter().map(|(r, m)| (&**r, &**m)).collect();
    rules(&all)
}

/// On a map of labels. Those of the template as well: revisions carry them, so
/// there would be not even a revision to say what is wrong.
pub(crate) fn labels(field: &str) -> Value {
    let key = format!(
        "{field} has a key that cannot be a label's: letters, digits, '-', '_' and '.', after an optional DNS name and '/'"
    );
    let value = format!(
        "{field} has a value that cannot be a label's: at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last"
    );
    rules(&[
        (
            "self.all(k, !format.qualifiedName().validate(k).hasValue())",
            &key,
        ),
        (
            "self.all(k, !format.labelValue().validate(self[k]).hasValue())",
            &value,
        ),
    ])
}

pub(crate) fn match_expression() -> Value {
    rules(&[
        (
            "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
            "values must be given for the operators In and NotIn, and for no other",
        ),
        (
            "!format.qualifiedName().validate(self.key).hasValue()",
            "key must be a label's key: letters, digits, '-', '_' and '.', after an optional DNS name and '/'",
        ),
        (
            "!has(self.values) || self.values.all(v, !format.labelValue().validate(v).hasValue())",
            "values must be label values: at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last",
        ),
    ])
}

pub(crate) fn max_unavailable() -> Value {
    rules(&[(
        "type(self) == int ? self > 0 : self.matches('^0*([1-9][0-9]?|100)%$')",
        "maxUnavailable must be a number above 0 or a percentage from 1% to 100%",
    )])
}

pub(crate) fn service_name() -> Value {
    rules(&[(
        "self == '' || !format.dns1123Label().validate(self).hasValue()",
        "serviceName must be the name of a Service, a DNS label: lower-case letters, digits and '-'",
    )])
}

/// ControllerRevisions have the names of DNS subdomains.
pub(crate) fn rollback_to() -> Value {
    rules(&[(
        "!format.dns1123Subdomain().validate(self).hasValue()",
        "rollbackTo must be the name of a ControllerRevision of this set; kubectl get controllerrevisions lists them",
    )])
}

pub(crate) fn restart_policy() -> Value {
    rules(&[(
        "self == 'Always' || self == ''",
        "restartPolicy must be Always in a set: its pods run until the set ends them",
    )])
}

pub(crate) fn no_deadline() -> Value {
    rules(&[(
        "false",
        "activeDeadlineSeconds is not allowed in a set: its pods run until the set ends them; take it away",
    )])
}

pub(crate) fn claims() -> Value {
    rules(&[(
        "self.all(a, self.exists_one(b, a.metadata.name == b.metadata.name))",
        "two of volumeClaimTemplates have the same name; give each a name of its own",
    )])
}

pub(crate) fn claim_name() -> Value {
    rules(&[(
        "!format.dns1123Label().validate(self).hasValue()",
        "the name of a claim template must be a DNS label, as the pod's volume gets it: lower-case letters, digits and '-'",
    )])
}

/// What core asks of a claim's spec, so that it is said here and not when the
/// first claim is made: claim templates cannot be corrected afterwards.
pub(crate) fn claim_spec() -> Value {
    rules(&[
        (
            "has(self.accessModes) && size(self.accessModes) > 0",
            "accessModes must name at least one mode, such as ReadWriteOncePod",
        ),
        (
            "!has(self.accessModes) || size(self.accessModes) == 1 || !('ReadWriteOncePod' in self.accessModes)",
            "accessModes: ReadWriteOncePod cannot be combined with another access mode",
        ),
        (
            "has(self.resources) && has(self.resources.requests) && 'storage' in self.resources.requests && quantity(string(self.resources.requests['storage'])).isGreaterThan(quantity('0'))",
            "resources.requests.storage must say a size above 0, such as 10Gi",
        ),
        (
            "!has(self.storageClassName) || self.storageClassName == '' || !format.dns1123Subdomain().validate(self.storageClassName).hasValue()",
            "storageClassName must be the name of a StorageClass: lower-case letters, digits, '-' and '.'",
        ),
        (
            "!has(self.volumeAttributesClassName) || self.volumeAttributesClassName == '' || !format.dns1123Subdomain().validate(self.volumeAttributesClassName).hasValue()",
            "volumeAttributesClassName must be the name of a VolumeAttributesClass: lower-case letters, digits, '-' and '.'",
        ),
    ])
}

/// On the status, as upstream holds its controller to it: a counter that cannot be
/// is a mistake of the controller's, and clients must not act on it.
pub(crate) fn status() -> Value {
    let below = |a: &str, b: &str| {
        (
            format!("self.?{a}.orValue(0) <= self.?{b}.orValue(0)"),
            format!("{a} cannot be above {b}"),
        )
    };
    let mut all = vec![
        below("readyReplicas", "replicas"),
        below("currentReplicas", "replicas"),
        below("updatedReplicas", "replicas"),
        below("availableReplicas", "readyReplicas"),
    ];
    all.push((
        "self.?collisionCount.orValue(0) >= oldSelf.?collisionCount.orValue(0)".to_owned(),
        "collisionCount cannot fall: revisions would get the names of older ones".to_owned(),
    ));
    let all: Vec<(&str, &str)> = all.iter().map(|(r, m)| (&**r, &**m)).collect();
    rules(&all)
}

/// What a Volume starts from. An enum's own schema would need `oneOf`, whose refusal
/// says nothing that helps; a rule has a message.
pub(crate) fn source(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "properties": {
            "snapshot": {
                "description": "Name of the Snapshot to restore.",
                "type": "string",
                "nullable": true,
            },
            "volume": {
                "description": "Name of the Volume to clone.",
                "type": "string",
                "nullable": true,
            },
        },
        "x-kubernetes-validations": rules(&[(
            "has(self.snapshot) != has(self.volume)",
            "source must name exactly one thing to start from: a snapshot or a volume",
        )]),
    })
}
