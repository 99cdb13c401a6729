//! Tollhouse takes your cookies and hands your backend a Bearer token.

pub mod base;
pub mod config;
pub mod exchange;
