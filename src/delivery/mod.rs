//! Outgoing HTTP: callbacks, and the change feed of another process.
