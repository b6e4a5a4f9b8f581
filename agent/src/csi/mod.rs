//! The Container Storage Interface: what kubelet calls over the agent's socket.

pub mod guard;
pub mod identity;
pub mod node;
mod request;
pub mod server;
pub mod status;
