//! Tollhouse takes your cookies and hands your backend a Bearer token.
//!
//! The life of a request: the [`server`] accepts a connection and gives each request to [`gateway::Gateway::handle`], which
//! decides (admit, route, CORS, limits, select, CSRF, prove, limits, authorize, prepare), performs (forward, redirect,
//! answer) and finishes (headers, record). The modules below stand in floor order: a file uses only what is declared above
//! its own module, and `tests/order.rs` holds them to it.

pub mod base;
pub mod exchange;
pub mod config;
pub mod telemetry;
pub mod redis;
pub mod headers;
pub mod cors;
pub mod limit;
pub mod token;
pub mod authz;
pub mod upstream;
pub mod provider;
pub mod session;
pub mod authn;
pub mod csrf;
pub mod endpoints;
pub mod route;
pub mod snapshot;
pub mod gateway;
pub mod server;
pub mod demo;
pub mod cli;
