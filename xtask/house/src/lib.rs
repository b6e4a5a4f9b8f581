//! How the code is kept, counted from the source: which files import one another in
//! a circle, how long files are, how many methods a type has, where `unsafe` stands.
//!
//! Only production code counts: what is compiled for tests alone (`#[cfg(test)]`, the
//! feature `testing`) is left out, and so is what a build script generates.
//!
//! A file depends on another when it names something that the other defines, by `use`
//! or by a path in its code. A `pub use` gives a thing a second name and depends on
//! nothing; whoever uses that name depends on the file that defines the thing. Method
//! calls are not followed, since their types are not known here.

mod allowed;
mod circles;
mod files;
mod imports;
mod measure;
mod modules;
mod workspace;

pub use allowed::Allowed;
pub use circles::Circle;
pub use measure::{Largest, Measure};
pub use workspace::{Member, checkout, members};
