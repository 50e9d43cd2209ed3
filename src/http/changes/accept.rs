//! Whether a reader takes JSON, the one format of this release.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// Whether Accept allows JSON. Without the header, or with nothing in it, everything is allowed.
pub(super) fn takes_json(headers: &HeaderMap) -> bool {
    let values: Vec<&[u8]> = headers.get_all(ACCEPT).iter().map(|value| value.as_bytes()).collect();
    let joined = values.join(&b',');
    let text = String::from_utf8_lossy(&joined);
    let ranges = text.split(',').map(str::trim).filter(|range| !range.is_empty());
    let mut told = false;
    let mut best: Option<(Precision, bool)> = None;
    for range in ranges {
        told = true;
        let mut parts = range.split(';');
        let Some(precision) = parts.next().and_then(precision) else { continue };
        // Of the ranges that match, the most precise one counts, whatever their order.
        if best.is_none_or(|(found, _)| precision > found) {
            best = Some((precision, parts.all(allows)));
        }
    }
    best.map_or(!told, |(_, allowed)| allowed)
}

/// How precisely a media range names JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Anything,
    Application,
    Json,
}

fn precision(range: &str) -> Option<Precision> {
    let is = |name| range.trim().eq_ignore_ascii_case(name);
    if is("application/json") {
        Some(Precision::Json)
    } else if is("application/*") {
        Some(Precision::Application)
    } else if is("*/*") {
        Some(Precision::Anything)
    } else {
        None
    }
}

/// Whether a parameter leaves its range allowed: every one does but a quality of zero.
fn allows(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return true };
    !name.trim().eq_ignore_ascii_case("q") || value.trim().parse::<f32>().map_or(true, |quality| quality > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn json_is_given_to_those_who_take_it() {
        for (accept, taken) in [
            (&[][..], true),
            (&[""], true),
            (&["*/*"], true),
            (&["application/*"], true),
            (&["application/json"], true),
            (&["Application/JSON; charset=utf-8"], true),
            (&["text/html, application/json;q=0.1"], true),
            (&["text/html", "application/json"], true),
            (&["application/transicator+protobuf;q=1, application/json;q=0.5"], true),
            (&["*/*;q=0, application/json"], true),
            (&["application/json;q=0.001"], true),
            (&["application/json; Q=1"], true),
            (&["application/json;q=much"], true),
            (&["application/transicator+protobuf"], false),
            (&["text/html"], false),
            (&["nonsense"], false),
            (&["application/json;q=0"], false),
            (&["application/json; q=0.000, */*"], false),
            (&["*/*, application/json;q=0"], false),
            (&["application/*;q=0, */*"], false),
            (&["*/*;q=0"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, HeaderValue::from_str(value).expect("a header"));
            }
            assert_eq!(takes_json(&headers), taken, "{accept:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_range() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_bytes(b"\xff/\xff").expect("a header"));
        assert!(!takes_json(&headers));
    }
}
