//! Integration: changes.
