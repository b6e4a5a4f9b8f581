//! StatefulSets as people have them convert by their first two lines, and nothing
//! of their templates is lost on the way.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::ctx::Ctx;

/// The shapes in circulation, as files of `tests/e2e/shapes`.
const SHAPES: [(&str, &str); 8] = [
    ("nginx", include_str!("../../shapes/nginx.yaml")),
    ("zookeeper", include_str!("../../shapes/zookeeper.yaml")),
    ("mysql", include_str!("../../shapes/mysql.yaml")),
    ("redis", include_str!("../../shapes/redis.yaml")),
    ("etcd", include_str!("../../shapes/etcd.yaml")),
    ("mongodb", include_str!("../../shapes/mongodb.yaml")),
    ("cassandra", include_str!("../../shapes/cassandra.yaml")),
    ("kafka", include_str!("../../shapes/kafka.yaml")),
];

const NATIVE: &str = "apiVersion: apps/v1\nkind: StatefulSet\n";
const BERTH: &str = "apiVersion: berth.dev/v1alpha1\nkind: OrdinalSet\n";

/// Each shape is accepted as it is, and again with its first two lines changed, by
/// client-side and by server-side apply; what is stored is what was given.
pub async fn convert(ctx: &Ctx, ns: &str) -> Result<()> {
    for (name, manifest) in SHAPES {
        convert_one(ctx, ns, manifest)
            .await
            .with_context(|| name.to_owned())?;
    }
    println!("{} shapes convert", SHAPES.len());
    Ok(())
}

async fn convert_one(ctx: &Ctx, ns: &str, manifest: &str) -> Result<()> {
    ensure!(
        manifest.matches(NATIVE).count() == 1,
        "the shape has not one StatefulSet"
    );
    let converted = manifest.replace(NATIVE, BERTH);
    let apply = ["-n", ns, "apply", "-f", "-", "-o", "json"];
    let strict = ["--dry-run=server", "--validate=strict"];
    let by_server = ["--dry-run=server", "--validate=strict", "--server-side"];
    run(ctx, &[&apply[..], &strict].concat(), manifest).await?;
    // What kubectl reads from the text, before any server has seen it.
    let read = [
        "-n",
        ns,
        "create",
        "--dry-run=client",
        "-f",
        "-",
        "-o",
        "json",
    ];
    let given = set_of(&run(ctx, &read, &converted).await?)?;
    for (how, text) in [(&strict[..], &converted), (&by_server, &converted)] {
        let stored = set_of(&run(ctx, &[&apply[..], how].concat(), text).await?)?;
        let mut lost = Vec::new();
        for part in ["template", "volumeClaimTemplates", "selector"] {
            compare(part, &given["spec"][part], &stored["spec"][part], &mut lost);
        }
        ensure!(lost.is_empty(), "not stored as given: {}", lost.join("; "));
    }
    Ok(())
}

async fn run(ctx: &Ctx, args: &[&str], text: &str) -> Result<String> {
    ctx.kubectl.run_with_input(args, text).await
}

/// The OrdinalSet among the objects that kubectl printed.
fn set_of(printed: &str) -> Result<Value> {
    for object in serde_json::Deserializer::from_str(printed).into_iter::<Value>() {
        let object = object?;
        let items = object["items"].as_array().cloned();
        for item in items.unwrap_or_else(|| vec![object]) {
            if item["kind"] == "OrdinalSet" {
                return Ok(item);
            }
        }
    }
    anyhow::bail!("kubectl printed no OrdinalSet: {printed}")
}

/// Fields that the API server adds because core does: keys of lists that are merged
/// by them, and the mode of a claim.
const DEFAULTS: [(&str, &str); 2] = [("protocol", "TCP"), ("volumeMode", "Filesystem")];

/// Where `stored` is not `given`. A field left empty is no field.
fn compare(at: &str, given: &Value, stored: &Value, lost: &mut Vec<String>) {
    match (given, stored) {
        (Value::Object(given), Value::Object(stored)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                match stored.get(name) {
                    Some(found) => compare(&format!("{at}.{name}"), value, found, lost),
                    None => lost.push(format!("{at}.{name} is gone")),
                }
            }
            for (name, value) in stored.iter().filter(|(name, _)| !given.contains_key(*name)) {
                if !value.is_null() && !DEFAULTS.iter().any(|(n, v)| n == name && value == v) {
                    lost.push(format!("{at}.{name} was added: {value}"));
                }
            }
        }
        (Value::Array(given), Value::Array(stored)) if given.len() == stored.len() => {
            for (index, (value, found)) in given.iter().zip(stored).enumerate() {
                compare(&format!("{at}[{index}]"), value, found, lost);
            }
        }
        _ if given == stored => {}
        _ => lost.push(format!("{at} was {given} and is {stored}")),
    }
}
