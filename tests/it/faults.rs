//! Integration: faults.
