//! The face of the change feed: `GET /changes`.
