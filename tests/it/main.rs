//! The whole gateway on real sockets: one binary, modules by feature.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod support;

mod admin;
mod cache;
mod commands;
mod cookies;
mod cors;
mod csrf;
mod endpoints;
mod errors;
mod grpc;
mod http2;
mod hygiene;
mod inspect;
mod keys;
mod limits;
mod login;
mod paths;
mod process;
mod provider;
mod provider_calls;
mod records;
mod redis;
mod redis_ended;
mod redis_refresh;
mod redis_sessions;
mod refresh_storm;
mod renewal;
mod replicas;
mod sealed;
mod session;
mod stored;
mod storm;
mod streaming;
mod streams_end;
mod syntax;
mod timers;
mod tls;
mod tokens;
mod upstreams;
mod websocket;
mod whoami;
