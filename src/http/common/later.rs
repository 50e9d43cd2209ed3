//! Answers that take their time. A handler may leave the making of its answer to the server, so that nothing of the way to
//! the handler is kept meanwhile: of a reader that waits, the router, its layers and the request would be most.
//!
//! The layers around the handler do not see such an answer: what they would do to it is the handler's to do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::response::Response;
use parking_lot::Mutex;

/// An answer in the making.
pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Where a handler leaves its answer: an extension of those requests whose answer may be left. Cheap to clone; clones are
/// the same.
#[derive(Clone, Default)]
pub struct Later(Arc<Mutex<Option<Answer>>>);

impl Later {
    /// Leaves the answer. What is returned stands for it up to the server, and reaches nobody.
    pub fn leave(&self, answer: impl Future<Output = Response> + Send + 'static) -> Response {
        *self.0.lock() = Some(Box::pin(answer));
        Response::default()
    }

    /// The answer, if it was left.
    pub fn take(&self) -> Option<Answer> {
        self.0.lock().take()
    }
}
