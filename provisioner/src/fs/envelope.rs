//! The envelope of every file that Berth keeps on a pool: kind, version and
//! checksum around a body. A torn, edited or foreign file is noticed, and a file
//! of a newer version is distinguished from a damaged one.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::names::hex;

/// Largest file that is read: records are a few hundred bytes.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// Why a file in an envelope cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("not a JSON document in an envelope ({0})")]
    NotJson(String),
    #[error("holds a {found:?}, not a {wanted:?}")]
    Kind { found: String, wanted: String },
    #[error("version {0} is newer than this program knows; upgrade Berth on this node")]
    Version(u64),
    #[error("its checksum does not match its content")]
    Checksum,
    #[error("its content is not understood ({0})")]
    Content(String),
}

/// What can be kept in an envelope: the kind and version that its file carries.
pub(crate) trait Document: Serialize + DeserializeOwned {
    /// Kind of document.
    const KIND: &'static str;
    /// Version of the body's format.
    const VERSION: u64;
}

/// The file's content for `body`.
pub(crate) fn encode<T: Document>(body: &T) -> Vec<u8> {
    let body = serde_json::to_value(body).expect("plain data has a JSON form");
    let mut envelope = Map::new();
    envelope.insert("kind".into(), T::KIND.into());
    envelope.insert("version".into(), T::VERSION.into());
    envelope.insert("sha256".into(), checksum(T::KIND, T::VERSION, &body).into());
    envelope.insert("body".into(), body);
    let mut bytes =
        serde_json::to_vec_pretty(&Value::Object(envelope)).expect("a JSON value has a text");
    bytes.push(b'\n');
    bytes
}

/// The body of a file's content, if it is whole.
pub(crate) fn decode<T: Document>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| EnvelopeError::NotJson(e.to_string()))?;
    let part = |name: &str| {
        value
            .get(name)
            .ok_or_else(|| EnvelopeError::NotJson(format!("no {name:?}")))
    };
    let kind = part("kind")?.as_str().unwrap_or_default();
    if kind != T::KIND {
        return Err(EnvelopeError::Kind {
            found: kind.to_owned(),
            wanted: T::KIND.to_owned(),
        });
    }
    let version = part("version")?.as_u64().unwrap_or_default();
    let body = part("body")?;
    if part("sha256")?.as_str() != Some(checksum(kind, version, body).as_str()) {
        return Err(EnvelopeError::Checksum);
    }
    if version > T::VERSION {
        return Err(EnvelopeError::Version(version));
    }
    T::deserialize(body).map_err(|e| EnvelopeError::Content(e.to_string()))
}

/// Over kind, version and the body with its keys sorted, so that neither white
/// space nor the order of keys matters, and fields of later versions count.
fn checksum(kind: &str, version: u64, body: &Value) -> String {
    let mut text = format!("{kind}\n{version}\n");
    canonical(body, &mut text);
    hex(&Sha256::digest(text.as_bytes()))
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            // Sorted here: whether the map itself sorts depends on a feature that
            // another crate of the build may switch.
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (key, value) in keys {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
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
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        b: u64,
        a: String,
    }
    impl Document for Thing {
        const KIND: &'static str = "thing";
        const VERSION: u64 = 1;
    }

    fn thing() -> Thing {
        Thing {
            b: u64::MAX,
            a: "ä\"\n".into(),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(decode::<Thing>(&encode(&thing())), Ok(thing()));
    }

    #[test]
    fn every_torn_file_is_noticed() {
        let whole = encode(&thing());
        // Less than the closing brace: the final newline carries nothing.
        for end in 0..whole.len() - 1 {
            assert!(decode::<Thing>(&whole[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_edited_field_is_noticed_and_its_layout_is_not() {
        let text = String::from_utf8(encode(&thing())).unwrap();
        let edited = text.replace(&u64::MAX.to_string(), "7");
        assert_eq!(
            decode::<Thing>(edited.as_bytes()),
            Err(EnvelopeError::Checksum)
        );
        let compact = text.replace("\n  ", "");
        assert_eq!(decode::<Thing>(compact.as_bytes()), Ok(thing()));
    }

    #[test]
    fn a_newer_version_is_not_called_damaged() {
        let body = serde_json::json!({"b": 1, "a": "", "new": 2});
        let sum = checksum("thing", 2, &body);
        let file = serde_json::json!({"kind": "thing", "version": 2, "sha256": sum, "body": body});
        assert_eq!(
            decode::<Thing>(file.to_string().as_bytes()),
            Err(EnvelopeError::Version(2))
        );
    }

    #[test]
    fn another_kind_is_refused() {
        let file = encode(&thing());
        let other = String::from_utf8(file).unwrap().replace("thing", "other");
        assert!(matches!(
            decode::<Thing>(other.as_bytes()),
            Err(EnvelopeError::Kind { .. })
        ));
    }
}
