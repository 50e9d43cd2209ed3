//! The pure machine of leases: what is held, what is to be given up, what may be taken.
