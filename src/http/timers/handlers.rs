//! The operations: parse, one call of the service, render.

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::batch;
use super::description::{
    CreateTimerRequest, CreateTimersRequest, RefusalsOfChange, RefusalsOfCreate, RefusalsOfGet, TimerSelection,
    UpdateTimerRequest,
};
use super::error::Failure;
use super::wire::{self, Timer};
use crate::domain::limits;
use crate::http::common::body;
use crate::service::timers::Timers;

/// Create a timer
///
/// One with the id of another takes its place, also when that has fired.
#[utoipa::path(
    post,
    path = "/api/v1/timers/create",
    operation_id = "createTimer",
    request_body = CreateTimerRequest,
    responses((status = 200, description = "The timer.", body = Timer<'static>), RefusalsOfCreate),
)]
pub(super) async fn create(State(timers): State<Timers>, request: Request) -> Result<Response, Failure> {
    let definition = wire::create_request(&body::json(request).await?)?;
    let timer = timers.create(definition).await.map_err(|error| Failure::of(error, wire::CREATE_ID))?;
    Ok(Json(wire::Timer::of(&timer)).into_response())
}

/// Create timers
///
/// As one create after the other, in one transaction: those that are good are there at once, and each of the others has its
/// error in its place. Of several with one id the last one stays.
#[utoipa::path(
    post,
    path = "/api/v1/timers/create-batch",
    operation_id = "createTimers",
    request_body = CreateTimersRequest,
    responses(
        (status = 200, description = "What became of each, in their order.", body = batch::Results<'static>),
        RefusalsOfCreate,
    ),
)]
pub(super) async fn create_batch(
    State(timers): State<Timers>,
    Extension(places): Extension<batch::Places>,
    request: Request,
) -> Result<Response, Failure> {
    let _place = places.take().await?;
    let json = body::json_up_to(limits::CREATE_BATCH_BYTES_MAX, request).await?;
    batch::create(&timers, &json).await
}

/// Get a timer
///
/// The pending timer, else its latest run, until the retention has passed.
#[utoipa::path(
    post,
    path = "/api/v1/timers/get",
    operation_id = "getTimer",
    request_body = TimerSelection,
    responses((status = 200, description = "How it stands.", body = Timer<'static>), RefusalsOfGet),
)]
pub(super) async fn get(State(timers): State<Timers>, request: Request) -> Result<Response, Failure> {
    let key = wire::selection(&body::json(request).await?)?;
    let status = timers.get(&key).await.map_err(|error| Failure::of(error, wire::ID))?;
    Ok(Json(wire::Timer::of_status(&status)).into_response())
}

/// Update a timer
///
/// What is left out stays. Only a pending timer can be changed; a new `executeAt` counts its attempts anew.
#[utoipa::path(
    post,
    path = "/api/v1/timers/update",
    operation_id = "updateTimer",
    request_body = UpdateTimerRequest,
    responses((status = 200, description = "The timer.", body = Timer<'static>), RefusalsOfChange),
)]
pub(super) async fn update(State(timers): State<Timers>, request: Request) -> Result<Response, Failure> {
    let (key, update) = wire::update_request(&body::json(request).await?)?;
    let timer = timers.update(&key, &update).await.map_err(|error| Failure::of(error, wire::ID))?;
    Ok(Json(wire::Timer::of(&timer)).into_response())
}

/// Delete a timer
///
/// Only a pending timer can be deleted. Its callback does not start any more.
#[utoipa::path(
    post,
    path = "/api/v1/timers/delete",
    operation_id = "deleteTimer",
    request_body = TimerSelection,
    responses((status = 204, description = "It is gone."), RefusalsOfChange),
)]
pub(super) async fn delete(State(timers): State<Timers>, request: Request) -> Result<StatusCode, Failure> {
    let key = wire::selection(&body::json(request).await?)?;
    timers.delete(&key).await.map_err(|error| Failure::of(error, wire::ID))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn method_not_allowed() -> Failure {
    Failure::method_not_allowed()
}

pub(super) async fn unknown_path(uri: Uri) -> Failure {
    Failure::unknown_path(uri.path())
}
