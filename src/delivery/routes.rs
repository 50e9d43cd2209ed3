//! Where callbacks go: what is read out of a URL, once for all timers that have it.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use url::Url;

use super::{Error, request};
use crate::domain::limits::ROUTES_KEPT_MAX;

/// What a request takes from a callback's URL.
pub(super) struct Route {
    pub(super) url: Url,
    /// Path and query.
    pub(super) target: Uri,
    pub(super) host: HeaderValue,
}

impl Route {
    fn parse(text: &str) -> Result<Self, Error> {
        let url = request::url(text)?;
        let (target, host) = (request::target(&url)?, request::host(&url)?);
        Ok(Self { url, target, host })
    }
}

/// The routes of the URLs that were called of late.
#[derive(Default)]
pub(super) struct Routes(Mutex<HashMap<Box<str>, Arc<Route>>>);

impl Routes {
    /// The route of this URL, or a refusal.
    pub(super) fn of(&self, text: &str) -> Result<Arc<Route>, Error> {
        if let Some(route) = self.0.lock().get(text) {
            return Ok(route.clone());
        }
        let route = Arc::new(Route::parse(text)?);
        let mut kept = self.0.lock();
        if kept.len() >= ROUTES_KEPT_MAX {
            // Where every timer has a URL of its own none is worth keeping; where few have, they are soon back.
            kept.clear();
        }
        kept.insert(text.into(), route.clone());
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_once_and_few_are_kept() {
        let routes = Routes::default();
        let first = routes.of("http://a.test:81/hook?x=1").expect("a URL");
        assert_eq!((first.host.as_bytes(), first.target.to_string().as_str()), (&b"a.test:81"[..], "/hook?x=1"));
        assert!(Arc::ptr_eq(&first, &routes.of("http://a.test:81/hook?x=1").expect("a URL")));
        for n in 0..=ROUTES_KEPT_MAX {
            routes.of(&format!("http://a.test/{n}")).expect("a URL");
            assert!(routes.0.lock().len() <= ROUTES_KEPT_MAX);
        }
        assert!(routes.of("http://user@a.test/").is_err());
        assert!(routes.of("nonsense").is_err());
    }
}
