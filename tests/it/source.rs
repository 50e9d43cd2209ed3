//! Integration: source.
