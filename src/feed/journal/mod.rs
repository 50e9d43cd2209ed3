//! The journal: append-only segment files in commit order, indexed by scope.
