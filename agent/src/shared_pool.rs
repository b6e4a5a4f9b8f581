//! How a pool on the node's own filesystem is asked for: `NAME=SIZE`.

use berth_api::Bytes;
use berth_provisioner::SharedPool;

/// Reads `NAME=SIZE`, `shared=20Gi` for example.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn parse(text: &str) -> Result<SharedPool, String> {
    let (name, size) = text
        .split_once('=')
        .ok_or("write a name and a size: shared=20Gi for example")?;
    let size: Bytes = size.parse().map_err(|error| format!("{error}"))?;
    SharedPool::new(name, size.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_size() {
        assert_eq!(
            parse("shared=20Gi"),
            SharedPool::new("shared", 20 << 30).map_err(|e| e.to_string())
        );
        for (text, expected) in [
            ("", "shared=20Gi for example"),
            ("shared", "shared=20Gi for example"),
            ("20Gi", "shared=20Gi for example"),
            ("shared=", "not a size"),
            ("shared=lots", "not a size"),
            ("shared=-1", "not a size"),
            ("shared=0", "greater than zero"),
            ("=20Gi", "must match"),
            ("../etc=20Gi", "must match"),
            ("a/b=20Gi", "must match"),
            (".hidden=20Gi", "must match"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
