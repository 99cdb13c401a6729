//! The rules of this room on real sockets. `connections`: reuse and its ends. `answers`: what upstreams may say.
//! `requests`: bodies, deadlines, retries, endpoints. `multiplexed`, `streams`, `given_up` and `uploads`: the same for HTTP/2.
//! `choosing`: which of both. `switching`: upgrades.

mod answers;
mod choosing;
mod connections;
mod fixture;
mod given_up;
mod multiplexed;
mod peer;
mod requests;
mod streams;
mod switching;
mod uploads;
