//! A page for human eyes.

use bytes::Bytes;

use super::body::{CHUNK_BYTES, Chunks, JsonPage};
use super::transcode;
use crate::http::common::indent::Indent;

/// A page indented by two spaces a level, with a newline at its end. It is made while it is sent.
pub(super) struct PrettyPage {
    page: JsonPage,
    /// What of the page has been taken and not been indented.
    compact: Bytes,
    indent: Indent,
    /// What has been made and not been taken.
    ready: Option<Bytes>,
}

impl PrettyPage {
    /// The page, with its first chunk made: so it is known how long a small one is.
    pub(super) fn new(page: JsonPage) -> Self {
        let mut pretty = Self { page, compact: Bytes::new(), indent: Indent::default(), ready: None };
        pretty.ready = pretty.make();
        pretty
    }

    /// Indents the next part. However large a change is, it is a part of bounded size.
    fn make(&mut self) -> Option<Bytes> {
        if self.is_made() {
            return None;
        }
        if self.compact.is_empty() {
            self.compact = self.page.chunk()?;
        }
        let part = self.compact.split_to(self.compact.len().min(CHUNK_BYTES));
        let mut out = Vec::with_capacity(2 * part.len());
        self.indent.write(&part, &mut out);
        if self.is_made() {
            out.push(b'\n');
        }
        Some(out.into())
    }

    fn is_made(&self) -> bool {
        self.compact.is_empty() && self.page.rest() == Some(0)
    }
}

impl Chunks for PrettyPage {
    fn chunk(&mut self) -> Option<Result<Bytes, transcode::Error>> {
        self.ready.take().or_else(|| self.make()).map(Ok)
    }

    fn rest(&self) -> Option<usize> {
        self.is_made().then(|| self.ready.as_ref().map_or(0, Bytes::len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn page(json: &Value) -> PrettyPage {
        PrettyPage::new(JsonPage::new(Bytes::new(), vec![Bytes::from(json.to_string())], Bytes::new()))
    }

    fn check(json: &Value) {
        let mut page = page(json);
        let mut indented = Vec::new();
        while page.rest() != Some(0) {
            indented.extend_from_slice(&page.chunk().expect("there is more").expect("JSON"));
        }
        assert!(page.chunk().is_none());
        let indented = String::from_utf8(indented).expect("JSON is UTF-8");
        assert_eq!(indented, serde_json::to_string_pretty(json).expect("a value") + "\n");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(".{0,5}", inner, 0..5).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    #[test]
    fn brackets_in_texts_are_text() {
        check(&serde_json::json!({"a": "{\"[,:\\", "b": [], "c": {}, "d": [1, {"e": [[]]}]}));
    }

    #[test]
    fn a_large_change_is_made_in_parts_and_of_a_small_page_the_length_is_known() {
        let small = page(&serde_json::json!({"a": 1}));
        assert_eq!(small.rest(), Some("{\n  \"a\": 1\n}\n".len()));
        for length in [CHUNK_BYTES - 5, CHUNK_BYTES, 5 * CHUNK_BYTES] {
            let large = serde_json::json!({"a": "\\\"".repeat(length / 2), "b": [1, 2]});
            check(&large);
            let mut page = page(&large);
            assert!(page.rest().is_none());
            let mut parts = std::iter::from_fn(|| page.chunk());
            assert!(parts.all(|part| part.expect("JSON").len() <= CHUNK_BYTES + 100));
        }
    }

    proptest! {
        #[test]
        fn it_looks_as_serde_json_would_have_it(json in any_json()) {
            check(&json);
        }
    }
}
