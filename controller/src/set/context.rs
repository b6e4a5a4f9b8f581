//! What the reconciles of all sets share.

use std::sync::Arc;

use super::{cache::Caches, competing::CompetingControllers, state::SetStates};
use crate::context::Ctx;

/// What every reconcile shares.
pub(super) struct Context {
    pub(super) ctx: Arc<Ctx>,
    pub(super) caches: Caches,
    pub(super) states: SetStates,
    pub(super) competing: CompetingControllers,
}

impl Context {
    /// Knows nothing yet.
    pub(super) fn new(ctx: Arc<Ctx>) -> Self {
        Self {
            ctx,
            caches: Caches::default(),
            states: SetStates::default(),
            competing: CompetingControllers::default(),
        }
    }
}
