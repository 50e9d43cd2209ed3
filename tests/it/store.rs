//! Integration: store.
