//! The rules of the layout that a tool can check.
