//! The API server of the model: what a write does.

use super::*;

impl World {
    pub(in crate::set::tests) fn apply(&mut self, action: Action) {
        self.log.push(
            explain::action(&action)
                .split(" (uid")
                .next()
                .unwrap()
                .to_owned(),
        );
        match action {
            Action::CreatePod { claims, pod } => {
                claims.into_iter().for_each(|c| self.create_claim(c));
                self.create_pod(pod);
            }
            Action::CreateClaims { claims, .. } => {
                claims.into_iter().for_each(|c| self.create_claim(c))
            }
            Action::DeletePod {
                uid,
                resource_version,
                ..
            } => {
                let (now, version) = (self.view.now, self.version());
                let found = self
                    .view
                    .pods
                    .iter_mut()
                    .find(|p| p.uid == uid && p.resource_version == resource_version);
                if let Some(pod) = found {
                    let pod = Arc::make_mut(pod);
                    pod.resource_version = version;
                    pod.deleted = Some(now);
                }
            }
            Action::KeepPod {
                uid,
                resource_version,
                ..
            } => {
                let version = self.version();
                let found = (self.view.pods.iter_mut())
                    .find(|p| p.uid == uid && p.resource_version == resource_version);
                if let Some(pod) = found {
                    Arc::make_mut(pod).resource_version = version;
                }
            }
            Action::RepairPod { name, labels, .. } => {
                let ordinal = self.view.set.ordinal(&name).unwrap();
                self.edit(ordinal, |pod| pod.labels.extend(labels));
            }
            Action::AdoptPod { name, owner, .. } => {
                let ordinal = self.view.set.ordinal(&name).unwrap();
                self.edit(ordinal, |pod| pod.controller = Some(controller(&owner)));
            }
            Action::ReleasePod { name, .. } => {
                let ordinal = self.view.set.ordinal(&name).unwrap();
                self.edit(ordinal, |pod| pod.controller = None);
            }
            Action::UpdateClaimOwners { claims } => {
                for update in claims {
                    let version = self.version();
                    let claim = Arc::make_mut(self.view.claims.get_mut(&update.name).unwrap());
                    assert_eq!(claim.resource_version, update.resource_version);
                    claim.owners = update.owners;
                    claim.resource_version = version;
                }
                self.collect();
            }
            Action::CreateRevision {
                name,
                labels,
                revision,
                data,
                ..
            } => {
                assert!(!self.view.revisions.iter().any(|r| r.name == name));
                let version = self.version();
                self.view.revisions.push(Arc::new(Revision {
                    namespace: "ns".into(),
                    name: name.clone(),
                    uid: format!("uid-{name}"),
                    resource_version: version,
                    labels,
                    controller: Some("set".into()),
                    revision,
                    created: Some(self.view.now),
                    data: serde_json::from_str(&data).unwrap(),
                }));
            }
            Action::RenumberRevision { name, revision, .. } => {
                let found = self.view.revisions.iter_mut().find(|r| r.name == name);
                Arc::make_mut(found.unwrap()).revision = revision;
            }
            Action::AdoptRevision { name, .. } => {
                let found = self.view.revisions.iter_mut().find(|r| r.name == name);
                Arc::make_mut(found.unwrap()).controller = Some("set".into());
            }
            Action::DeleteRevision { name, .. } => self.view.revisions.retain(|r| r.name != name),
            Action::NormalizeRevision {
                revision,
                resource_version,
                template,
                candidate,
            } => {
                // Today's default of the API server of this world.
                let complete = |mut template: Value| {
                    let spec = template["spec"].as_object_mut();
                    spec.unwrap().entry("today").or_insert(json!(1));
                    template
                };
                self.view.normal_form = Some(NormalForm {
                    revision,
                    resource_version,
                    template: Some(complete(template)),
                    candidate: candidate.map(|c| Candidate {
                        template: c.template.map(complete),
                        ..c
                    }),
                });
            }
            Action::CheckTemplate { revision, pod } => {
                let image = &pod.manifest["spec"]["containers"][0]["image"];
                let verdict = if image == "refused" {
                    Verdict::Refused("spec.containers[0].image: not allowed".into())
                } else {
                    Verdict::Passed
                };
                self.view.template_check = Some(TemplateCheck {
                    revision,
                    verdict,
                    at: self.view.now,
                });
            }
        }
    }

    fn create_claim(&mut self, claim: Object) {
        let version = self.version();
        let owners = claim.manifest["metadata"]["ownerReferences"].clone();
        let claim = Claim {
            namespace: "ns".into(),
            name: claim.name,
            uid: format!("claim-{version}"),
            resource_version: version,
            deleting: false,
            owners: serde_json::from_value(owners).unwrap_or_default(),
            bound: true,
        };
        let there = self.view.claims.insert(claim.name.clone(), Arc::new(claim));
        assert!(there.is_none(), "a claim is made twice");
    }

    fn create_pod(&mut self, pod: Object) {
        let version = self.version();
        let meta = &pod.manifest["metadata"];
        let volumes = pod.manifest["spec"]["volumes"].as_array();
        let claims = volumes.into_iter().flatten().filter_map(|v| {
            let claim = v["persistentVolumeClaim"]["claimName"].as_str()?;
            Some((v["name"].as_str()?.to_owned(), claim.to_owned()))
        });
        let owner: OwnerReference =
            serde_json::from_value(meta["ownerReferences"][0].clone()).unwrap();
        let claims: BTreeMap<String, String> = claims.collect();
        for claim in claims.values() {
            assert!(
                self.view.claims.contains_key(claim),
                "a pod before its claim"
            );
        }
        self.view.pods.push(Arc::new(Pod {
            namespace: "ns".into(),
            name: pod.name,
            uid: format!("pod-{version}"),
            resource_version: version,
            labels: serde_json::from_value(meta["labels"].clone()).unwrap(),
            controller: Some(controller(&owner)),
            phase: Some(PodPhase::Pending),
            created: Some(self.view.now),
            grace_seconds: 30,
            claims,
            ..Pod::default()
        }));
        let name = |p: &Arc<Pod>| p.name.clone();
        let mut names: Vec<String> = self.view.pods.iter().map(name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), self.view.pods.len(), "two pods of one ordinal");
    }
}
