//! Mounts of volumes: where they may be, who has them, and making and removing them.

pub(crate) mod freeze;
pub(crate) mod loop_image;
pub(crate) mod publish;
pub(crate) mod publishers;
pub(crate) mod target;
pub(crate) mod users;
