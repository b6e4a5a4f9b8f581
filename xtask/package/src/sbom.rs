//! A bill of materials, in CycloneDX's form: every crate that is linked into the two
//! programs, and every Debian package that the image has files of.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::run::stdout;
use crate::userland::{Package, SUITE};
use crate::{Arch, VERSION, checkout};

/// The packages whose programs are shipped.
const ROOTS: [&str; 2] = ["berth-agent", "berth-controller"];

/// The document for an architecture.
pub(crate) fn document(arch: Arch, debian: &BTreeSet<Package>) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let text = stdout(
        Command::new(cargo)
            .args([
                "metadata",
                "--format-version=1",
                "--locked",
                "--filter-platform",
            ])
            .arg(arch.target())
            .current_dir(checkout()),
    )?;
    let metadata = serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    Ok(serde_json::to_string_pretty(&compose(arch, &metadata, debian)?)? + "\n")
}

fn compose(arch: Arch, metadata: &Value, debian: &BTreeSet<Package>) -> Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let id = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (id(&package["id"]), package))
        .collect();
    let linked: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let normal = |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|k| k["kind"].is_null());
            let deps = list(&node["deps"]);
            let deps = deps
                .iter()
                .filter(normal)
                .map(|dep| id(&dep["pkg"]))
                .collect();
            (id(&node["id"]), deps)
        })
        .collect();
    let mut found = BTreeSet::new();
    let mut next: Vec<_> = packages
        .iter()
        .filter(|(_, package)| ROOTS.iter().any(|root| package["name"] == *root))
        .map(|(id, _)| id.clone())
        .collect();
    while let Some(one) = next.pop() {
        if found.insert(one.clone()) {
            next.extend(linked.get(&one).into_iter().flatten().cloned());
        }
    }
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for one in &found {
        let package = packages
            .get(one)
            .context("cargo names a package that it does not list")?;
        let deps = linked.get(one).map(Vec::as_slice).unwrap_or_default();
        dependencies.push(json!({
            "ref": reference(package),
            "dependsOn": deps.iter().filter_map(|d| packages.get(d)).map(reference).collect::<BTreeSet<_>>(),
        }));
        let mut component = json!({
            "type": if ROOTS.iter().any(|root| package["name"] == *root) { "application" } else { "library" },
            "bom-ref": reference(package),
            "name": package["name"],
            "version": package["version"],
        });
        if !package["source"].is_null() {
            component["purl"] = json!(reference(package));
        }
        if let Some(license) = package["license"].as_str() {
            // Old manifests write a slash for OR.
            component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
        }
        components.push(component);
    }
    components.extend(debian.iter().map(|Package { name, version }| {
        let purl = format!("pkg:deb/debian/{name}@{version}?arch={arch}&distro={SUITE}");
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    }));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "container", "bom-ref": format!("berth-image-{arch}"), "name": "berth", "version": VERSION,
        }},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// How a crate is referred to.
fn reference(package: &Value) -> String {
    let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_in_is_listed_and_build_tools_are_not() {
        let package = |name: &str, source: Value| json!({"id": name, "name": name, "version": "1.0.0", "source": source, "license": "MIT/Apache-2.0"});
        let metadata = json!({
            "packages": [
                package("berth-agent", Value::Null),
                package("linked", json!("registry")),
                package("tool", json!("registry")),
                package("unrelated", json!("registry")),
            ],
            "resolve": {"nodes": [
                {"id": "berth-agent", "deps": [
                    {"pkg": "linked", "dep_kinds": [{"kind": null}]},
                    {"pkg": "tool", "dep_kinds": [{"kind": "build"}]},
                ]},
                {"id": "linked", "deps": []},
            ]},
        });
        let debian = BTreeSet::from([Package {
            name: "libc6".to_owned(),
            version: "2".to_owned(),
        }]);
        let document = compose(Arch::Arm64, &metadata, &debian).unwrap();
        let names: Vec<_> = document["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["berth-agent", "linked", "libc6"]);
        assert_eq!(
            document["components"][1]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(
            document["dependencies"][0],
            json!({"ref": "pkg:cargo/berth-agent@1.0.0", "dependsOn": ["pkg:cargo/linked@1.0.0"]})
        );
    }
}
