//! The operations: parse, one call of the service, render.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::error::Failure;
use super::wire;
use crate::http::common::body;
use crate::service::timers::Timers;

pub(super) async fn create(State(timers): State<Timers>, request: Request) -> Result<Response, Failure> {
    let definition = wire::create_request(&body::json(request).await?)?;
    let timer = timers.create(definition).await.map_err(|error| Failure::of(error, wire::CREATE_ID))?;
    Ok(Json(wire::Timer::of(&timer)).into_response())
}

pub(super) async fn get(State(timers): State<Timers>, request: Request) -> Result<Response, Failure> {
    let key = wire::selection(&body::json(request).await?)?;
    let status = timers.get(&key).await.map_err(|error| Failure::of(error, wire::ID))?;
    Ok(Json(wire::Timer::of_status(&status)).into_response())
}

pub(super) async fn update(State(timers): State<Timers>, request: Request) -> Result<Response, Failure> {
    let (key, update) = wire::update_request(&body::json(request).await?)?;
    let timer = timers.update(&key, &update).await.map_err(|error| Failure::of(error, wire::ID))?;
    Ok(Json(wire::Timer::of(&timer)).into_response())
}

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
