//! walclock: a change feed and a durable clock beside PostgreSQL.
//!
//! The layers, each importing only what stands before it:
//! `clock | lockfile | pg → domain → feed | dispatch → store | delivery → service → http → app → cli → main`.
//! `localpg`, `config` and `telemetry` serve `app` and `cli`.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod dispatch;
pub mod domain;
pub mod feed;
pub mod http;
pub mod localpg;
pub mod lockfile;
pub mod pg;
pub mod service;
pub mod store;
pub mod telemetry;
