//! Content negotiation: which of the forms that a resource offers suits its reader best.

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// A media type that answers come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `application/json`.
    Json,
    /// `application/transicator+protobuf`, as `proto/transicator.proto` has it.
    Protobuf,
    /// `text/event-stream`.
    EventStream,
}

impl MediaType {
    /// The value of Content-Type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/transicator+protobuf",
            Self::EventStream => "text/event-stream",
        }
    }

    /// The same as a header.
    pub const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }
}

/// A form of answers that a header of the request may ask for.
pub trait Offer: Copy {
    /// How precisely a range of the header names this form, if it does.
    fn named_by(self, range: &str) -> Option<Precision>;
}

impl Offer for MediaType {
    /// An answer without an end is nothing for a reader who takes anything, so a wildcard never means the event stream.
    fn named_by(self, range: &str) -> Option<Precision> {
        let is = |name: &str| range.eq_ignore_ascii_case(name);
        if is(self.name()) {
            return Some(Precision::Named);
        }
        match self {
            Self::EventStream => None,
            Self::Json | Self::Protobuf if is("application/*") => Some(Precision::Family),
            Self::Json | Self::Protobuf => is("*/*").then_some(Precision::Anything),
        }
    }
}

/// How precisely a range names what is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// It names everything.
    Anything,
    /// It names all of a kind.
    Family,
    /// It names this alone.
    Named,
}

/// Of the media types that a resource offers, its favourite first, the one that Accept rates highest; none where all that
/// is offered is excluded or left out. Without the header, or with nothing in it, it is the favourite.
pub fn choose(headers: &HeaderMap, offered: &[MediaType]) -> Option<MediaType> {
    if ranges(&joined(headers, &ACCEPT)).next().is_none() {
        return offered.first().copied();
    }
    best(headers, &ACCEPT, offered)
}

/// Of what is offered, the favourite first, what this header rates highest; none where all of it is excluded or left out.
/// Of the ranges that match one the most precise rates it, whatever their order; parameters other than `q` do not matter.
pub fn best<T: Offer>(headers: &HeaderMap, name: &HeaderName, offered: &[T]) -> Option<T> {
    let mut ratings: Vec<Option<(Precision, f32)>> = vec![None; offered.len()];
    for range in ranges(&joined(headers, name)) {
        let mut parts = split(range, ';');
        let name = parts.next().unwrap_or_default();
        let quality = quality(parts);
        for (offer, rating) in offered.iter().zip(&mut ratings) {
            let Some(precision) = offer.named_by(name) else { continue };
            // A range that is there twice, with parameters of which nothing is known here, counts by its better one.
            if rating.is_none_or(|rated| (precision, quality) > rated) {
                *rating = Some((precision, quality));
            }
        }
    }
    let mut best = None;
    for (offer, rating) in offered.iter().zip(ratings) {
        let quality = rating.map_or(0.0, |(_, quality)| quality);
        if quality > best.map_or(0.0, |(_, best)| best) {
            best = Some((*offer, quality));
        }
    }
    best.map(|(offer, _)| offer)
}

/// All values of a header as one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    String::from_utf8_lossy(&values.join(&b',')).into_owned()
}

/// The ranges of a header, with their parameters.
fn ranges(text: &str) -> impl Iterator<Item = &str> {
    split(text, ',').filter(|range| !range.is_empty())
}

/// The quality among a range's parameters: from 0 to 1, and 1 where there is none or none that can be read.
fn quality<'a>(parameters: impl Iterator<Item = &'a str>) -> f32 {
    let pairs = parameters.filter_map(|parameter| parameter.split_once('='));
    let mut qualities = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let quality = qualities.next().and_then(|(_, value)| value.trim().parse::<f32>().ok());
    quality.filter(|quality| quality.is_finite()).map_or(1.0, |quality| quality.clamp(0.0, 1.0))
}

/// The parts between separators, but for those within quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(move |letter: char| {
        quoted ^= letter == '"' && !escaped;
        escaped = quoted && letter == '\\' && !escaped;
        letter == separator && !quoted
    });
    parts.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::MediaType::{EventStream, Json, Protobuf};
    use super::*;

    fn headers(accept: &[&str]) -> HeaderMap {
        accept.iter().map(|value| (ACCEPT, HeaderValue::from_str(value).expect("a header"))).collect()
    }

    #[test]
    fn the_best_of_what_is_offered_is_chosen() {
        for (accept, chosen) in [
            (&[][..], Some(Json)),
            (&[""], Some(Json)),
            (&[" , "], Some(Json)),
            (&["*/*"], Some(Json)),
            (&["application/*"], Some(Json)),
            (&["application/json"], Some(Json)),
            (&["Application/JSON; charset=utf-8"], Some(Json)),
            (&["application/transicator+protobuf"], Some(Protobuf)),
            (&["APPLICATION/Transicator+ProtoBuf;v=1"], Some(Protobuf)),
            (&["text/event-stream"], Some(EventStream)),
            (&["text/html, application/json;q=0.1"], Some(Json)),
            (&["text/html", "application/json"], Some(Json)),
            // The highest quality wins, and ties go by the server's preference.
            (&["application/transicator+protobuf, application/json"], Some(Json)),
            (&["application/transicator+protobuf;q=1, application/json;q=0.5"], Some(Protobuf)),
            (&["application/json;q=0.5", "application/transicator+protobuf;q=0.6"], Some(Protobuf)),
            (&["text/event-stream, application/transicator+protobuf"], Some(Protobuf)),
            (&["text/event-stream, */*;q=0.1"], Some(EventStream)),
            (&["application/transicator+protobuf, */*;q=0.1"], Some(Protobuf)),
            (&["*/*;q=0.2, application/transicator+protobuf;q=0.1"], Some(Json)),
            (&["application/json; Q=0.1 , application/*;q=0.2"], Some(Protobuf)),
            // The more precise range rates a type.
            (&["*/*;q=0, application/json"], Some(Json)),
            (&["application/json, */*;q=0"], Some(Json)),
            (&["application/json;q=0.001"], Some(Json)),
            (&["*/*, application/json;q=0"], Some(Protobuf)),
            (&["application/json; q=0.000, */*"], Some(Protobuf)),
            (&["application/*;q=0, */*"], None),
            (&["application/*;q=0, */*, text/event-stream;q=0.1"], Some(EventStream)),
            (&["application/json;q=0.9;v=2, application/json;q=0, application/transicator+protobuf;q=0.8"], Some(Json)),
            // What makes no sense.
            (&["application/json;q=much"], Some(Json)),
            (&["application/json;q=nan"], Some(Json)),
            (&["application/json;q=7, application/transicator+protobuf"], Some(Json)),
            (&["application/json;q=-1"], None),
            (&["application/json;q"], Some(Json)),
            (&["application/json;x=\"a, */*;q=1;\\\", b\";q=0"], None),
            (&["nonsense"], None),
            (&["*/json"], None),
            (&["*"], None),
            // Nothing that is offered.
            (&["text/html"], None),
            (&["text/*"], None),
            (&["application/json;q=0"], None),
            (&["*/*;q=0"], None),
        ] {
            assert_eq!(choose(&headers(accept), &[Json, Protobuf, EventStream]), chosen, "{accept:?}");
        }
    }

    #[test]
    fn what_is_not_offered_is_not_chosen() {
        for (accept, offered, chosen) in [
            ("application/transicator+protobuf", &[Json][..], None),
            ("application/json;q=0.1, application/transicator+protobuf", &[Json], Some(Json)),
            ("*/*", &[EventStream], None),
            ("*/*", &[Protobuf, Json], Some(Protobuf)),
            ("application/json, application/*", &[Protobuf, Json], Some(Protobuf)),
            ("*/*", &[], None),
        ] {
            assert_eq!(choose(&headers(&[accept]), offered), chosen, "{accept} of {offered:?}");
        }
        assert_eq!(choose(&HeaderMap::new(), &[EventStream]), Some(EventStream));
        assert_eq!(choose(&HeaderMap::new(), &[]), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_no_range() {
        let value = HeaderValue::from_bytes(b"\xff/\xff").expect("a header");
        assert_eq!(choose(&HeaderMap::from_iter([(ACCEPT, value)]), &[Json]), None);
    }
}
