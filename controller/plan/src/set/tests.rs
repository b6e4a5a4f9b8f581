//! Tables: a view as text in, the plan as text out. Properties: a model of the
//! API server and of kubelet that carries plans out.

mod claims;
mod conditions;
mod failures;
mod matrix;
mod model;
mod native;
mod properties;
mod restart;
mod retention;
mod revision;
mod rolling;
mod scenarios;
mod two_planners;
mod unready;
