//! Gives away what the agent does not need.
//!
//! Its container is privileged, because only such a container may pass mounts on
//! to the host; it then has every capability there is. Capabilities belong to
//! threads, so this happens before the first other thread starts.

use caps::{CapSet, Capability, CapsHashSet};

/// What mounting, quotas and foreign files need.
const KEPT: [Capability; 9] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_CHOWN,
    Capability::CAP_FSETID,
    // File capabilities in a volume that is copied.
    Capability::CAP_SETFCAP,
    // Device nodes of loop-backed volumes.
    Capability::CAP_MKNOD,
    // The kernel lets nobody else resize a mounted ext4 (ext4_resize_begin), which
    // is what is inside an image.
    Capability::CAP_SYS_RESOURCE,
];

/// Drops every other capability, for good, and forbids gaining any by executing
/// programs. A step that the system refuses is logged and does not stop the
/// agent: it then merely keeps more than it needs.
pub fn drop_unneeded() {
    for (what, result) in [
        (
            "no new privileges",
            nix::sys::prctl::set_no_new_privs().map_err(|error| error.to_string()),
        ),
        (
            "ambient capabilities",
            caps::clear(None, CapSet::Ambient).map_err(|error| error.to_string()),
        ),
        ("bounding set", shrink_bounding_set()),
        (
            "inheritable capabilities",
            caps::clear(None, CapSet::Inheritable).map_err(|error| error.to_string()),
        ),
        ("effective capabilities", shrink(CapSet::Effective)),
        ("permitted capabilities", shrink(CapSet::Permitted)),
    ] {
        if let Err(error) = result {
            tracing::warn!(what, error, "privileges are not dropped");
        }
    }
}

fn shrink_bounding_set() -> Result<(), String> {
    // Fails without CAP_SETPCAP, so it comes before the other sets.
    for capability in caps::all() {
        let had = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
        if had && !KEPT.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn shrink(set: CapSet) -> Result<(), String> {
    let had = caps::read(None, set).map_err(|error| error.to_string())?;
    let keep: CapsHashSet = KEPT.into_iter().filter(|kept| had.contains(kept)).collect();
    caps::set(None, set, &keep).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Capabilities are a thread's own, so a thread can try it.
    #[test]
    fn only_what_is_kept_is_left() {
        std::thread::spawn(|| {
            drop_unneeded();
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Bounding] {
                let left = caps::read(None, set).expect("reads");
                assert!(
                    left.iter().all(|capability| KEPT.contains(capability)),
                    "{set:?}: {left:?}"
                );
            }
            assert!(nix::sys::prctl::get_no_new_privs().expect("reads"));
        })
        .join()
        .expect("no panic");
    }
}
