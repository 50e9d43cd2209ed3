//! The replication connection: it logs in, checks the slot, streams, and reports what is durable.
