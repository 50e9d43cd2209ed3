//! Logs and metrics: how they leave the process. What is logged and counted stands where it happens.

mod logs;
mod metrics;

pub use logs::{FilterError, Logs, start_logs};
pub use metrics::{Exposition, METRICS, Metric, start_metrics};
