//! Rooms that read and write header fields and need no other room.

pub mod cookies;
pub mod events;
pub mod forwarded;
pub mod grpc;
pub mod host;
pub mod inbound;
pub mod names;
pub mod outbound;
pub mod path;
pub mod security;
pub mod strip;
