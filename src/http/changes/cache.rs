//! What a cache between the readers and the server may do with an answer, so that equal calls of many readers are one here.
//!
//! The changes behind a sequence never change: an answer that has some is right for ever, if short after a while. An answer
//! without any must not be kept: a reader who waits would be given it again and again, and ask as fast as it can.

use axum::http::header::{AUTHORIZATION, COOKIE, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};

use crate::feed::query::Page;

/// The value of Cache-Control for what must not be kept.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What is said of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// The value of Cache-Control.
    pub(super) control: HeaderValue,
    /// The value of ETag, where the answer may be kept.
    pub(super) tag: Option<HeaderValue>,
}

impl Marks {
    /// The marks of a page that is sent in the form of this name: a word of letters.
    pub(super) fn of(page: &Page, form: &str, request: &HeaderMap) -> Self {
        if page.changes.is_empty() {
            return Self { control: NO_STORE, tag: None };
        }
        // Nobody is asked who they are here, but something in front may: what it let one caller have is not for the rest.
        let is_private = request.contains_key(AUTHORIZATION) || request.contains_key(COOKIE);
        // A page that is not full may grow at any moment. In a full one only the oldest sequence, told beside, moves on.
        let control = match (is_private, page.is_full) {
            (false, false) => "public, max-age=1",
            (false, true) => "public, max-age=60",
            (true, false) => "private, max-age=1",
            (true, true) => "private, max-age=60",
        };
        // For one address, the changes of an answer follow from where it ends; a purge also moves where it begins.
        let tag = format!("W/\"{}-{}-{}-{form}\"", page.first, page.last, page.changes.len());
        let tag = HeaderValue::try_from(tag).expect("sequences, numbers and words are visible ASCII");
        Self { control: HeaderValue::from_static(control), tag: Some(tag) }
    }

    /// Whether If-None-Match says that the caller has this answer. The answer that has no tag is not known to anyone.
    pub(super) fn are_known(&self, request: &HeaderMap) -> bool {
        let Some(own) = self.tag.as_ref().and_then(opaque) else { return false };
        let mut given = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        given.any(|tags| tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == own))
    }
}

/// The tag without the mark of a weak one: two tags are compared by it.
fn opaque(tag: &HeaderValue) -> Option<&str> {
    tag.to_str().ok().map(|tag| tag.trim_start_matches("W/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sequence::{Lsn, Sequence};
    use crate::feed::query::Change;
    use crate::feed::room::Taken;
    use bytes::Bytes;

    fn page(changes: u32, is_full: bool) -> Page {
        let sequence = |index| Sequence::new(1, Lsn(9), index);
        let changes = (0..changes).map(|index| Change { sequence: sequence(index), body: Bytes::new() }).collect();
        Page {
            first: sequence(0),
            last: sequence(0xa),
            from: Sequence::ZERO,
            is_full,
            changes,
            taken: Taken::default(),
        }
    }

    fn marks(page: &Page) -> Marks {
        Marks::of(page, "json", &HeaderMap::new())
    }

    #[test]
    fn what_may_be_kept_and_for_how_long() {
        for (page, control, tag) in [
            (page(0, false), "no-store", None),
            (page(0, true), "no-store", None),
            (page(2, false), "public, max-age=1", Some("W/\"0.9.0-0.9.a-2-json\"")),
            (page(3, true), "public, max-age=60", Some("W/\"0.9.0-0.9.a-3-json\"")),
        ] {
            let expected = Marks { control: HeaderValue::from_static(control), tag: tag.map(HeaderValue::from_static) };
            assert_eq!(marks(&page), expected);
        }
    }

    #[test]
    fn what_was_let_through_for_one_caller_is_not_kept_for_the_rest() {
        for name in [AUTHORIZATION, COOKIE] {
            let request = HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]);
            for (page, control) in [
                (page(0, false), "no-store"),
                (page(1, false), "private, max-age=1"),
                (page(1, true), "private, max-age=60"),
            ] {
                assert_eq!(Marks::of(&page, "json", &request).control, control);
            }
        }
    }

    #[test]
    fn a_tag_tells_answers_apart() {
        let other = |change: fn(&mut Page)| {
            let mut page = page(2, false);
            change(&mut page);
            marks(&page)
        };
        let own = other(|_| {});
        assert_ne!(own.tag, other(|page| page.first = Sequence::new(1, Lsn(9), 1)).tag);
        assert_ne!(own.tag, other(|page| page.last = Sequence::new(1, Lsn(9), 1)).tag);
        assert_ne!(own.tag, other(|page| page.changes.truncate(1)).tag);
        assert_ne!(own.tag, Marks::of(&page(2, false), "protobuf", &HeaderMap::new()).tag);
    }

    #[test]
    fn who_has_the_answer_says_so_in_one_of_several_ways() {
        let own = marks(&page(2, false));
        for (given, known) in [
            (&[][..], false),
            (&["W/\"0.9.0-0.9.a-2-json\""], true),
            (&["\"0.9.0-0.9.a-2-json\""], true),
            (&["\"other\", W/\"0.9.0-0.9.a-2-json\""], true),
            (&["\"other\"", "W/\"0.9.0-0.9.a-2-json\""], true),
            (&["*"], true),
            (&["\"*\""], false),
            (&["0.9.0-0.9.a-2-json"], false),
            (&["W/\"0.9.0-0.9.a-3-json\""], false),
            (&["\"other\""], false),
            (&[""], false),
        ] {
            let request = given.iter().map(|tag| (IF_NONE_MATCH, HeaderValue::from_static(tag))).collect();
            assert_eq!(own.are_known(&request), known, "{given:?}");
        }
        let any = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("*"))]);
        assert!(!marks(&page(0, false)).are_known(&any), "who waits is always told where to follow on");
    }
}
