//! Integration: end_to_end.
