//! The decoder of pgoutput, protocol 1. Pure: bytes in, messages out, never a panic.
