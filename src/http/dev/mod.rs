//! What only `walclock dev` serves: `/dev/echo`, a receiver to point first timers at. It takes every callback and shows
//! how late it came. Never for production: it is open to anyone, and it forgets.

mod echo;

use axum::Router;
use axum::routing::get;

use crate::clock::Clock;
use echo::Echo;

/// The routes of this face. `clock` is the one that the dispatcher fires by.
pub fn routes(clock: Clock) -> Router {
    Router::new()
        .route("/dev/echo", get(echo::list).post(echo::receive).put(echo::receive))
        .with_state(Echo::new(clock))
}
