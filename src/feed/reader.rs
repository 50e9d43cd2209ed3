//! Answers one call for changes, waiting for some where asked to.
