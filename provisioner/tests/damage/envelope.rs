//! Checksums of records, computed apart from the program's: what a disk from other
//! hands, or a newer program, could hold.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Changes a file and updates its checksum.
pub(crate) fn rewrite(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(
        file["sha256"],
        checksum(&file),
        "the format of envelopes changed"
    );
    change(&mut file);
    file["sha256"] = checksum(&file);
    std::fs::write(path, serde_json::to_vec_pretty(&file).unwrap()).unwrap();
}

fn checksum(file: &Value) -> Value {
    let mut text = format!("{}\n{}\n", file["kind"].as_str().unwrap(), file["version"]);
    canonical(&file["body"], &mut text);
    let mut hex = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex.into()
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in keys {
                write!(out, "{}:", Value::String(key.clone())).unwrap();
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => write!(out, "{scalar}").unwrap(),
    }
}
