//! Integration: timers.
