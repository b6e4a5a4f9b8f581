//! The Container Storage Interface: what kubelet calls over the agent's socket.

mod capacity;
pub mod controller;
mod create;
mod health;
pub mod identity;
mod lookup;
mod names;
pub mod node;
mod pages;
mod parameters;
mod placement;
mod request;
mod response;
pub mod server;
pub mod status;
