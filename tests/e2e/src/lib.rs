//! What Berth promises, as functions that run against a real cluster. The test
//! target runs them all; the demo tells some of them as a story.

pub mod bench;
pub mod ctx;
pub mod evidence;
pub mod external_storage;
pub mod install;
pub mod kubectl;
pub mod native_shapes;
pub mod picture;
pub mod rig;
pub mod sets;
pub mod steps;
pub mod story;
pub mod wait;
pub mod writers;
