//! Who wrote what, from the API server's audit log. It holds every write with its user, so
//! the contender's own writes are told apart from those of everybody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The group that the contender's token carries, beside those that its user really has.
pub const CONTENDER: &str = "bench:contender";

/// The API server's policy: writes, once each, without their bodies.
pub const POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
  "rules": [
    {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
    {"level": "None"}
  ]
}"#;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Default, Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// Writes, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Writes {
    /// The contender's, by what was written: `create pods`, `patch statefulsets/status`.
    pub contender: BTreeMap<String, u64>,
    /// The contender's that keep its lease.
    pub lease: u64,
    /// The contender's that were refused, by what and with which code; counted above too.
    pub refused: BTreeMap<String, u64>,
    /// Everybody else's.
    pub others: u64,
}

impl Writes {
    /// Counts the lines of a log. A line that is not whole is left out: its request is
    /// not over.
    pub fn count(log: &str) -> Self {
        let mut writes = Self::default();
        for line in log.lines() {
            if let Ok(line) = serde_json::from_str::<Line>(line) {
                writes.add(&line);
            }
        }
        writes
    }

    fn add(&mut self, line: &Line) {
        if !line.user.groups.iter().any(|group| group == CONTENDER) {
            self.others += 1;
            return;
        }
        let ObjectRef {
            resource,
            subresource,
        } = &line.object_ref;
        if resource == "leases" {
            self.lease += 1;
            return;
        }
        let slash = if subresource.is_empty() { "" } else { "/" };
        let tried = if line.uri.contains("dryRun=") {
            "try to "
        } else {
            ""
        };
        let what = format!("{tried}{} {resource}{slash}{subresource}", line.verb);
        let code = line.response_status.code;
        if code >= 400 {
            *self.refused.entry(format!("{what}: {code}")).or_default() += 1;
        }
        *self.contender.entry(what).or_default() += 1;
    }

    /// All writes of the contender but those of its lease.
    pub fn own(&self) -> u64 {
        self.contender.values().sum()
    }

    /// Those of them that tell people something and change nothing.
    pub fn events(&self) -> u64 {
        let events = self
            .contender
            .iter()
            .filter(|(what, _)| what.ends_with(" events"));
        events.map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(group: &str, verb: &str, resource: &str, sub: &str, code: u16, query: &str) -> String {
        serde_json::json!({
            "kind": "Event", "verb": verb, "requestURI": format!("/api/v1/x{query}"),
            "user": {"username": "u", "groups": [group, "system:authenticated"]},
            "objectRef": {"resource": resource, "subresource": sub, "name": "n"},
            "responseStatus": {"code": code},
        })
        .to_string()
    }

    #[test]
    fn the_contenders_writes_are_told_apart() {
        let log = [
            line(CONTENDER, "create", "pods", "", 201, ""),
            line(CONTENDER, "create", "pods", "", 409, ""),
            line(CONTENDER, "create", "pods", "", 201, "?dryRun=All"),
            line(CONTENDER, "patch", "statefulsets", "status", 200, ""),
            line(CONTENDER, "create", "events", "", 201, ""),
            line(CONTENDER, "update", "leases", "", 200, ""),
            line("system:nodes", "patch", "pods", "status", 200, ""),
            r#"{"verb":"create","user":{"gr"#.to_owned(),
        ]
        .join("\n");
        let writes = Writes::count(&log);
        let contender: Vec<_> = writes
            .contender
            .iter()
            .map(|(w, n)| (w.as_str(), *n))
            .collect();
        assert_eq!(
            contender,
            [
                ("create events", 1),
                ("create pods", 2),
                ("patch statefulsets/status", 1),
                ("try to create pods", 1)
            ]
        );
        assert_eq!((writes.own(), writes.events(), writes.lease), (5, 1, 1));
        assert_eq!(writes.refused["create pods: 409"], 1);
        assert_eq!(writes.others, 1);
    }
}
