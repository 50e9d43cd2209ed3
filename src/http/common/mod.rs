//! What the faces share.
