//! This program under its other roles.
//!
//! A private engine needs a first process and perhaps a runtime of its own; both
//! are this same program, so every program that uses the library must give it the
//! chance to take the role, as the first thing in `main`.

use std::path::Path;

use crate::role::{ENGINE, INNER};
use crate::{engine_init, runtime_shim};

/// Takes another role if this program was started for one, and then does not return.
///
/// Call this first in the `main` of every program that makes clusters.
pub fn take_role() {
    let args: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let result = if name.is_some_and(|n| n == crate::paths::RUNTIME_SHIM) {
        Err(runtime_shim::main(&args[1..]))
    } else if let [_, role, orders, rest @ ..] = args.as_slice()
        && role == ENGINE
    {
        match rest {
            [inner, ..] if inner == INNER => engine_init::inner(Path::new(orders)),
            _ => engine_init::outer(Path::new(orders)),
        }
    } else {
        return;
    };
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    std::process::exit(code);
}
