//! Valid and invalid sets as tables: each row is tried on a real API server, as an
//! OrdinalSet and beside it as the StatefulSet of the same words, so that what
//! Berth accepts is measured against what it is to be a superset of. The tables
//! say themselves how they are read (`tests/e2e/tables/create.yaml`).

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Api;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ctx::{Ctx, uid_of},
    sets::SetBuilder,
    wait::{check, until},
};

/// Takes a field away, where null would leave it empty.
const ABSENT: &str = "(absent)";

/// Rows in flight at once: enough to hide the round trips, too few for the API
/// server's fairness to notice.
const AT_ONCE: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    base: Value,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    what: String,
    #[serde(default, rename = "with")]
    created: Value,
    #[serde(default)]
    old: Value,
    #[serde(default)]
    new: Value,
    refused: Option<String>,
    condition: Option<String>,
    native: Option<Native>,
    why: Option<String>,
}

/// What `apps/v1` answers where it does not answer as Berth does.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Native {
    Accepted,
    Refused,
    Either,
}

impl Table {
    fn read(text: &str) -> Result<Self> {
        let table: Table = serde_saphyr::from_str(text).context("the table is no YAML")?;
        for row in &table.rows {
            let what = &row.what;
            ensure!(
                row.native.is_some() == row.why.is_some(),
                "{what}: `native` and `why` belong together"
            );
            ensure!(
                row.refused.is_none() || row.condition.is_none(),
                "{what}: refused, or a condition, but not both"
            );
        }
        Ok(table)
    }
}

impl Row {
    /// What is wrong with the two answers, if anything; an answer is a refusal's
    /// message, or nothing.
    fn judge(&self, ours: Option<&str>, native: Option<&str>) -> Option<String> {
        let wanted = self.native.unwrap_or({
            if self.refused.is_some() || self.condition.is_some() {
                Native::Refused
            } else {
                Native::Accepted
            }
        });
        let mut wrong = Vec::new();
        match (ours, &self.refused) {
            (Some(text), Some(words)) if !text.contains(words) => {
                wrong.push(format!("refused without the words {words:?}: {text}"));
            }
            (Some(text), None) => wrong.push(format!("refused: {text}")),
            (None, Some(words)) => wrong.push(format!("accepted, not refused with {words:?}")),
            _ => {}
        }
        match (native, wanted) {
            (Some(text), Native::Accepted) => wrong.push(format!("apps/v1 refuses it: {text}")),
            (None, Native::Refused) => wrong.push("apps/v1 accepts it".to_owned()),
            _ => {}
        }
        (!wrong.is_empty()).then(|| format!("{}: {}", self.what, wrong.join("; ")))
    }
}

/// The two kinds that a row is tried as.
#[derive(Clone, Copy)]
enum Kind {
    Ordinal,
    Native,
}

impl Kind {
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Kind::Ordinal => ("berth.dev/v1alpha1", "OrdinalSet", "ordinalsets"),
            Kind::Native => ("apps/v1", "StatefulSet", "statefulsets"),
        }
    }

    fn uri(self, ns: &str, rest: &str) -> String {
        let (version, _, plural) = self.names();
        format!("/apis/{version}/namespaces/{ns}/{plural}{rest}")
    }

    fn object(self, mut body: Value) -> Value {
        let (version, kind, _) = self.names();
        body["apiVersion"] = json!(version);
        body["kind"] = json!(kind);
        body
    }
}

const DRY_RUN: &str = "?dryRun=All&fieldValidation=Strict";

/// `patch` laid over `base`: maps are merged, everything else is replaced.
fn lay_over(base: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        base.clone_from(patch);
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (name, value) in fields {
        if value == ABSENT {
            base.as_object_mut().expect("it is a map now").remove(name);
        } else {
            lay_over(&mut base[name], value);
        }
    }
}

fn laid(base: &Value, patches: &[&Value]) -> Value {
    let mut value = base.clone();
    for patch in patches.iter().filter(|p| !p.is_null()) {
        lay_over(&mut value, patch);
    }
    value
}

/// The object that the API server answers with, or its refusal.
async fn send(
    ctx: &Ctx,
    method: &str,
    uri: &str,
    body: &Value,
) -> Result<Result<Value, kube::core::Status>> {
    let request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(body)?)?;
    match ctx.client.request::<Value>(request).await {
        Ok(object) => Ok(Ok(object)),
        Err(kube::Error::Api(status)) => Ok(Err(*status)),
        Err(error) => Err(error.into()),
    }
}

/// Reads an object, changes it and puts it back, until nobody was quicker.
async fn put(
    ctx: &Ctx,
    uri: &str,
    part: &str,
    query: &str,
    change: impl Fn(&mut Value),
) -> Result<Option<String>> {
    loop {
        let mut object: Value = serde_json::from_str(&ctx.raw("GET", uri, "").await?)?;
        change(&mut object);
        match send(ctx, "PUT", &format!("{uri}{part}{query}"), &object).await? {
            Ok(_) => return Ok(None),
            Err(status) if status.reason == "Conflict" => {}
            Err(status) => return Ok(Some(status.message)),
        }
    }
}

/// Tries all rows and fails with the list of those that did not go as they say.
async fn try_rows<'a, F>(
    name: &str,
    table: &'a Table,
    one: impl Fn(usize, &'a Row) -> F,
) -> Result<()>
where
    F: Future<Output = Result<Option<String>>>,
{
    let answers: Vec<_> = stream::iter(table.rows.iter().enumerate())
        .map(|(index, row)| {
            let answer = one(index, row);
            async move { answer.await.with_context(|| row.what.clone()) }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let wrong: Vec<String> = answers.into_iter().flatten().collect();
    let tried = table.rows.len();
    println!("{name}: {tried} rows tried, {} wrong", wrong.len());
    ensure!(
        wrong.is_empty(),
        "{} of {tried} rows of {name}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

const CREATE: &str = include_str!("../../tables/create.yaml");
const TEMPLATE: &str = include_str!("../../tables/create-template.yaml");
const UPDATE: &str = include_str!("../../tables/update.yaml");
const STATUS: &str = include_str!("../../tables/status.yaml");

/// What may and may not be created.
pub async fn create(ctx: &Ctx, ns: &str) -> Result<()> {
    for (name, text) in [("create.yaml", CREATE), ("create-template.yaml", TEMPLATE)] {
        let table = Table::read(text)?;
        try_rows(name, &table, async |_, row| {
            let body = laid(&table.base, &[&row.created]);
            let mut answers = Vec::new();
            for kind in [Kind::Ordinal, Kind::Native] {
                let uri = kind.uri(ns, DRY_RUN);
                let answer = send(ctx, "POST", &uri, &kind.object(body.clone())).await?;
                answers.push(answer.err().map(|status| status.message));
            }
            Ok(row.judge(answers[0].as_deref(), answers[1].as_deref()))
        })
        .await?;
    }
    Ok(())
}

/// What may and may not be changed.
pub async fn update(ctx: &Ctx, ns: &str) -> Result<()> {
    let table = Table::read(UPDATE)?;
    try_rows("update.yaml", &table, async |index, row| {
        let name = format!("row-{index}");
        let named = json!({"metadata": {"name": name}});
        let body = laid(&table.base, &[&named, &row.old]);
        let mut answers = Vec::new();
        for kind in [Kind::Ordinal, Kind::Native] {
            let made = send(ctx, "POST", &kind.uri(ns, ""), &kind.object(body.clone())).await?;
            if let Err(status) = made {
                bail!("the row's own start was refused: {}", status.message);
            }
            let uri = kind.uri(ns, &format!("/{name}"));
            let change = |object: &mut Value| *object = laid(object, &[&row.new]);
            answers.push(put(ctx, &uri, "", DRY_RUN, change).await?);
            if body["metadata"]["finalizers"].is_array() {
                let release = |object: &mut Value| object["metadata"]["finalizers"] = json!([]);
                put(ctx, &uri, "", "", release).await?;
            }
        }
        Ok(row.judge(answers[0].as_deref(), answers[1].as_deref()))
    })
    .await
}

/// What a status may and may not say.
pub async fn status(ctx: &Ctx, ns: &str) -> Result<()> {
    let base = Table::read(UPDATE)?.base;
    let table = Table::read(STATUS)?;
    try_rows("status.yaml", &table, async |index, row| {
        let name = format!("status-{index}");
        let body = laid(&base, &[&json!({"metadata": {"name": name}})]);
        let mut answers = Vec::new();
        for kind in [Kind::Ordinal, Kind::Native] {
            let made = send(ctx, "POST", &kind.uri(ns, ""), &kind.object(body.clone())).await?;
            made.map_err(|status| kube::Error::Api(Box::new(status)))?;
            let uri = kind.uri(ns, &format!("/{name}"));
            let become_ = |status: &Value| {
                let status = status.clone();
                move |object: &mut Value| {
                    let counted = object["status"]["collisionCount"].take();
                    object["status"] = status.clone();
                    // The kind's own controller may have counted already; only a row
                    // that counted before means to forget it.
                    if row.old.is_null() && status.get("collisionCount").is_none() {
                        object["status"]["collisionCount"] = counted;
                    }
                }
            };
            if !row.old.is_null() {
                let refused = put(ctx, &uri, "/status", "", become_(&row.old)).await?;
                ensure!(refused.is_none(), "the row's own start: {refused:?}");
            }
            answers.push(put(ctx, &uri, "/status", DRY_RUN, become_(&row.new)).await?);
        }
        Ok(row.judge(answers[0].as_deref(), answers[1].as_deref()))
    })
    .await
}

/// What only the making of a pod shows is said on the set, in the API server's own
/// words: no pod is made from such a template, and none is taken down for it.
pub async fn conditions(ctx: &Ctx, ns: &str) -> Result<()> {
    let created = Table::read(TEMPLATE)?;
    let changed = Table::read(UPDATE)?;
    let mut told = 0;
    for (index, row) in created.rows.iter().enumerate() {
        let Some(words) = &row.condition else {
            continue;
        };
        told += 1;
        let named = json!({"metadata": {"name": format!("new-{index}")}});
        let body = Kind::Ordinal.object(laid(&created.base, &[&row.created, &named]));
        ctx.apply(ns, &body).await.context(row.what.clone())?;
        expect_refused(ctx, ns, &format!("new-{index}"), words)
            .await
            .context(row.what.clone())?;
    }
    ctx.wait_only(ns, &[]).await?;
    for (index, row) in changed.rows.iter().enumerate() {
        let Some(words) = &row.condition else {
            continue;
        };
        told += 1;
        let name = format!("old-{index}");
        let pod = format!("{name}-0");
        let good = SetBuilder::new(&name, 1).build();
        ctx.apply(ns, &good).await?;
        let before = uid_of(&ctx.wait_ready(ns, &[&pod]).await?[&pod]);
        ctx.apply(ns, &laid(&good, &[&row.new]))
            .await
            .context(row.what.clone())?;
        expect_refused(ctx, ns, &name, words)
            .await
            .context(row.what.clone())?;
        let after = uid_of(&ctx.pods(ns).get(&pod).await?);
        ensure!(before == after, "{}: {pod} was replaced for it", row.what);
    }
    println!("{told} refused templates told on their sets");
    Ok(())
}

async fn expect_refused(ctx: &Ctx, ns: &str, set: &str, words: &str) -> Result<()> {
    let sets: Api<berth_api::OrdinalSet> = Api::namespaced(ctx.client.clone(), ns);
    until(
        &format!("{set} to say that its template is refused"),
        async || {
            let status = sets.get(set).await?.status.unwrap_or_default();
            let refused = status.conditions.iter().find(|c| {
                c.type_ == berth_api::names::condition::TEMPLATE_REFUSED && c.status == "True"
            });
            check(refused.is_some_and(|c| c.message.contains(words)), || {
                format!("{:?}", status.conditions)
            })
        },
    )
    .await
}
