//! Many timers of one request: each is read by itself, the good ones are created together, and each has its answer in its
//! place.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use super::error::{Body, Failure};
use super::wire;
use crate::domain::limits;
use crate::domain::timer::Timer;
use crate::http::common::fields;
use crate::service::timers::Timers;

/// What became of the timers of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = CreateTimersResults)]
pub(super) struct Results<'a> {
    /// One for each timer of the request, in its order.
    #[schema(min_items = 1, max_items = 1000)]
    results: Vec<Outcome<'a>>,
}

/// What became of one of them: it has a `timer` or an `error`.
#[derive(Serialize, ToSchema)]
#[schema(as = CreateTimersResult)]
enum Outcome<'a> {
    /// It is stored.
    #[serde(rename = "timer")]
    Timer(Box<wire::Timer<'a>>),
    /// It is not, and this is why. `details.field` names it by its place: `timers[3]`, or `timers[3].executeAt`.
    #[serde(rename = "error")]
    Error(Body),
}

/// The places for batches that are read and created at once: they bound what batches hold in memory. Who comes when all are
/// taken waits unread, in the order of coming.
#[derive(Clone)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::CREATE_BATCHES_MAX)))
    }
}

impl Places {
    /// A place, until it is dropped. Fails where none becomes free for as long as a body may take to arrive.
    pub(super) async fn take(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = tokio::time::timeout(limits::REQUEST_BODY_WAIT_MAX, self.0.clone().acquire_owned());
        place.await.map_err(|_elapsed| Failure::too_many_batches())?.map_err(|_closed| Failure::too_many_batches())
    }
}

/// Creates the timers of a `CreateTimersRequest`, and answers what became of each.
pub(super) async fn create(timers: &Timers, json: &[u8]) -> Result<Response, Failure> {
    let read = wire::batch_request(json)?.into_iter().enumerate().map(|(index, timer)| {
        let error = |error: fields::Error| Failure::from(error.within(&wire::way(index), timer.get()));
        wire::create_request(timer.get().as_bytes()).map_err(error)
    });
    let (mut good, mut places) = (Vec::new(), Vec::new());
    for read in read {
        places.push(read.map(|definition| good.push(definition)));
    }
    let created = timers.create_batch(good).await.map_err(|error| Failure::of(error, wire::CREATE_ID))?;
    let mut created = created.into_iter();
    let mut next = || created.next().expect("each that was read has an answer");
    let answers: Vec<Result<Timer, Failure>> = places
        .into_iter()
        .enumerate()
        .map(|(index, read)| read.and_then(|()| next().map_err(|error| Failure::within(error, &wire::way(index)))))
        .collect();
    let results = answers.iter().map(Outcome::of).collect();
    Ok(Json(Results { results }).into_response())
}

impl<'a> Outcome<'a> {
    fn of(answer: &'a Result<Timer, Failure>) -> Self {
        match answer {
            Ok(timer) => Self::Timer(Box::new(wire::Timer::of(timer))),
            Err(failure) => Self::Error(failure.body()),
        }
    }
}
