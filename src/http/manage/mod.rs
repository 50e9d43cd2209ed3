//! The face for operators and load balancers: `/health`, `/ready`, `/markdown`, `/metrics`.
