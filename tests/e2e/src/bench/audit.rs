//! Who writes how many objects, from the API server's audit log.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::ctx::SYSTEM;

/// A program that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writer {
    /// Berth's controller.
    BerthController,
    /// Berth's agents.
    BerthAgent,
    /// local-path-provisioner.
    LocalPath,
    /// Kubernetes' own programs: what a claim and its pod make them write.
    Kubernetes,
    /// Whoever measures.
    Bench,
}

/// Counts of writes by writer and by what was written, such as `create persistentvolumes`.
pub type Writes = BTreeMap<Writer, BTreeMap<String, u64>>;

/// What is read of an audit event (k8s.io/apiserver/pkg/apis/audit/v1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    user_agent: Option<String>,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: Option<String>,
    subresource: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    code: Option<u16>,
}

fn writer(line: &Line) -> Writer {
    let account = line.user.username.as_str();
    let of = |name: &str| account == format!("system:serviceaccount:{SYSTEM}:{name}");
    let agent = line.user_agent.as_deref().unwrap_or_default();
    match account {
        _ if of("berth-controller") => Writer::BerthController,
        _ if of("berth-agent") => Writer::BerthAgent,
        _ if agent.starts_with("local-path-provisioner/") => Writer::LocalPath,
        _ if account.starts_with("system:") => Writer::Kubernetes,
        _ => Writer::Bench,
    }
}

/// The writes of some lines of the log that the API server took. Lines that are no audit
/// events, such as one that is still being written, count as nothing.
pub fn count(text: &str) -> Writes {
    let mut writes = Writes::new();
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            continue;
        };
        let code = line.response_status.as_ref().and_then(|s| s.code);
        if !code.is_some_and(|code| (200..300).contains(&code)) {
            continue;
        }
        let object = line.object_ref.as_ref();
        let Some(resource) = object.and_then(|o| o.resource.as_deref()) else {
            continue;
        };
        let sub = object.and_then(|o| o.subresource.as_deref());
        let sub = sub.map(|sub| format!("/{sub}")).unwrap_or_default();
        let what = format!("{} {resource}{sub}", line.verb);
        let counts = writes.entry(writer(&line)).or_default();
        *counts.entry(what).or_default() += 1;
    }
    writes
}

/// Adds counts to others.
pub fn add(to: &mut Writes, more: &Writes) {
    for (writer, counts) in more {
        let sums = to.entry(*writer).or_default();
        for (what, count) in counts {
            *sums.entry(what.clone()).or_default() += count;
        }
    }
}

/// How many objects some writers wrote. Events are for people, and no state: they are
/// counted by [`events`].
pub fn objects(writes: &Writes, writers: &[Writer]) -> u64 {
    sum(writes, writers, |what| !is_event(what))
}

/// How many events some writers wrote.
pub fn events(writes: &Writes, writers: &[Writer]) -> u64 {
    sum(writes, writers, is_event)
}

fn is_event(what: &str) -> bool {
    what.ends_with(" events")
}

fn sum(writes: &Writes, writers: &[Writer], of: impl Fn(&str) -> bool) -> u64 {
    let counts = writers.iter().filter_map(|writer| writes.get(writer));
    let counts = counts.flatten().filter(|(what, _)| of(what));
    counts.map(|(_, count)| count).sum()
}

/// The log of a cluster, read from where it was read to.
pub struct Log {
    path: PathBuf,
    offset: u64,
}

impl Log {
    /// A log from its present end on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: PathBuf) -> Result<Self> {
        let length = std::fs::metadata(&path)
            .with_context(|| format!("cannot find the audit log {}", path.display()))?
            .len();
        Ok(Self {
            path,
            offset: length,
        })
    }

    /// The writes since the last call. A log that was begun anew meanwhile is read from its
    /// beginning.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn since(&mut self) -> Result<Writes> {
        let what = || format!("cannot read the audit log {}", self.path.display());
        let mut file = File::open(&self.path).with_context(what)?;
        if file.metadata().with_context(what)?.len() < self.offset {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset)).with_context(what)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(what)?;
        // A line that is not whole yet is for the next time.
        let whole = bytes
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        self.offset += whole as u64;
        let whole = bytes.get(..whole).unwrap_or_default();
        Ok(count(&String::from_utf8_lossy(whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(user: &str, agent: &str, verb: &str, resource: &str, sub: &str, code: u16) -> String {
        let mut object = serde_json::json!({"resource": resource});
        if !sub.is_empty() {
            object["subresource"] = sub.into();
        }
        serde_json::json!({
            "kind": "Event", "stage": "ResponseComplete", "verb": verb,
            "user": {"username": user}, "userAgent": agent, "objectRef": object,
            "responseStatus": {"code": code},
        })
        .to_string()
    }

    #[test]
    fn writes_have_their_writers() {
        let ours = "system:serviceaccount:berth-system:berth-controller";
        let agent = "system:serviceaccount:berth-system:berth-agent";
        let text = [
            line(ours, "", "create", "volumes", "", 201),
            line(agent, "", "patch", "volumes", "status", 200),
            line(ours, "", "create", "events", "", 201),
            line(
                "kubernetes-admin",
                "local-path-provisioner/v0",
                "create",
                "pods",
                "",
                201,
            ),
            line(
                "system:kube-scheduler",
                "kube-scheduler/v1",
                "patch",
                "persistentvolumeclaims",
                "",
                200,
            ),
            line("kubernetes-admin", "", "create", "pods", "", 201),
        ]
        .join("\n");
        let writes = count(&text);
        assert_eq!(writes[&Writer::BerthAgent]["patch volumes/status"], 1);
        assert_eq!(writes[&Writer::LocalPath]["create pods"], 1);
        assert_eq!(writes[&Writer::Kubernetes].len(), 1);
        assert_eq!(writes[&Writer::Bench]["create pods"], 1);
        let berth = [Writer::BerthController, Writer::BerthAgent];
        assert_eq!((objects(&writes, &berth), events(&writes, &berth)), (2, 1));
    }

    #[test]
    fn refused_writes_and_torn_lines_do_not_count() {
        let whole = line("x", "", "update", "pods", "", 409);
        let torn = &line("x", "", "update", "pods", "", 200)[..40];
        assert_eq!(count(&format!("{whole}\n{torn}")), Writes::new());
    }

    #[test]
    fn a_log_is_read_on_from_where_it_was_read_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let mut log = Log::open(path.clone()).unwrap();
        let one = line("x", "", "create", "pods", "", 201);
        std::fs::write(&path, format!("before\n{one}\n{}", &one[..9])).unwrap();
        assert_eq!(objects(&log.since().unwrap(), &[Writer::Bench]), 1);
        std::fs::write(&path, format!("before\n{one}\n{one}\n")).unwrap();
        let mut sum = log.since().unwrap();
        assert_eq!(objects(&sum, &[Writer::Bench]), 1);
        add(&mut sum, &count(&one));
        assert_eq!(objects(&sum, &[Writer::Bench]), 2);
        std::fs::write(&path, format!("{one}\n")).unwrap();
        assert_eq!(objects(&log.since().unwrap(), &[Writer::Bench]), 1);
    }
}
