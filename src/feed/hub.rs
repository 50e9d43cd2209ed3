//! Wakes exactly the waiters of the scopes that were touched.
