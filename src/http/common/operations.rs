//! The routes of a face and their description, added together: none can be without the other.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter};
use utoipa::openapi::path::{HttpMethod, Paths};
use utoipa::openapi::{Components, Info, OpenApi};
use utoipa::{Path, ToSchema};

/// The operations of a face.
pub struct Operations<S> {
    /// Answers them.
    pub router: Router<S>,
    /// Describes them, with the schemas that they refer to.
    pub description: OpenApi,
    tag: &'static str,
}

impl<S: Clone + Send + Sync + 'static> Operations<S> {
    /// None yet; `tag` is the group of those that come.
    pub fn new(tag: &'static str) -> Self {
        Self { router: Router::new(), description: OpenApi::new(Info::default(), Paths::new()), tag }
    }

    /// Adds an operation: the handler answers at the path and the method of its description.
    pub fn add<O: Path, H: Handler<T, S>, T: 'static>(mut self, _: O, handler: H) -> Self {
        let mut methods = MethodRouter::new();
        for method in O::methods() {
            methods = methods.on(filter(&method), handler.clone());
        }
        self.router = self.router.route(&O::path(), methods);
        let mut operation = O::operation();
        operation.tags = Some(vec![self.tag.to_owned()]);
        self.description.paths.add_path_operation(O::path(), O::methods(), operation);
        self
    }

    /// Has `handler` answer HEAD, which would be answered as GET is.
    pub fn answer_head<H: Handler<T, S>, T: 'static>(mut self, handler: H) -> Self {
        for path in self.description.paths.paths.keys() {
            self.router = self.router.route(path, MethodRouter::new().on(MethodFilter::HEAD, handler.clone()));
        }
        self
    }

    /// Adds a schema that descriptions refer to, and those that it refers to.
    pub fn schema<T: ToSchema>(mut self) -> Self {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        self.description.components.get_or_insert_with(Components::new).schemas.extend(schemas);
        self
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        _ => panic!("the operations of all faces are GET or POST"),
    }
}
