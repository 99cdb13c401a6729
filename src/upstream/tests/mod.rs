//! The rules of this room on real sockets. `connections`: reuse and its ends. `answers`: what upstreams may say.
//! `requests`: bodies, deadlines, retries, endpoints.

mod answers;
mod connections;
mod fixture;
mod requests;
