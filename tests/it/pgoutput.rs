//! Integration: pgoutput.
