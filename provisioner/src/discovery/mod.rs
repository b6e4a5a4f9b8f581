//! Finding pools that appeared, and reading what is in them.

mod claims;
mod load;
pub(crate) mod scan;
pub(crate) mod shared;
