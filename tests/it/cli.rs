//! Integration: cli.
