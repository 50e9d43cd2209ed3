//! Integration: journal.
