//! Finding pools that appeared, and reading what is in them.

pub(crate) mod load;
mod scan;
pub(crate) mod shared;
