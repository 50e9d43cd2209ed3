//! Integration: delivery.
