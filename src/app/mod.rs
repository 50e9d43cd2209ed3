//! Builds the parts, and decides the order in which they start and stop.
