//! Generated files must be what the code generates. `UPDATE=1 cargo test -p
//! berth-api --test generated` rewrites them.

use std::{env, fs, path::Path};

const HEADER: &str = "# Generated from proto/api by `UPDATE=1 cargo test -p berth-api --test generated`. Do not edit.\n";

/// What an object may weigh before client-side `kubectl apply`, which stores a
/// copy in an annotation, is refused (`TotalAnnotationSizeLimitB` upstream).
const APPLY_LIMIT: usize = 256 * 1024;

#[test]
fn crds_are_current() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for crd in berth_api::crds::all() {
        let name = crd.metadata.name.clone().unwrap();
        let json = serde_json::to_value(&crd).unwrap();
        assert!(
            json.to_string().len() < APPLY_LIMIT,
            "{name} is too large for kubectl apply: {} bytes",
            json.to_string().len()
        );
        let wanted = format!("{HEADER}{}", serde_saphyr::to_string(&json).unwrap());
        let path = dir.join(format!("{}.yaml", crd.spec.names.plural));
        if env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, &wanted).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} is stale; run: UPDATE=1 cargo test -p berth-api --test generated",
            path.display()
        );
    }
}
