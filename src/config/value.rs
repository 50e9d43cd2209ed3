//! From text to values. Each function gives none where the text is not one; the caller knows what to say about it.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::domain::duration;

/// `7d`, `1h30m`, `300s`: a span within bounds.
pub(super) fn span_within(least: Duration, most: Duration) -> impl Fn(&str) -> Option<Duration> {
    move |text| duration::parse(text).ok().filter(|span| (least..=most).contains(span))
}

/// `10GiB`, `512MiB`, `1GB`, `4096`: a whole number of bytes, with a binary or decimal unit.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A whole number within bounds.
pub(super) fn count(text: &str, bounds: std::ops::RangeInclusive<usize>) -> Option<usize> {
    text.parse().ok().filter(|count| bounds.contains(count))
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// An address range; a single address is the range of itself.
pub(super) fn range(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse().ok().map(|address: IpAddr| IpNet::from(address)))
}

/// The name of a replication slot: letters and digits in lower case, `-` as `_`, everything else dropped.
pub(super) fn slot(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() })
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
        .collect();
    Some(name).filter(|name| (1..=63).contains(&name.len()))
}

/// The name of a publication.
pub(super) fn publication(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    ((1..=63).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
}

/// The name of a column.
pub(super) fn column(text: &str) -> Option<String> {
    ((1..=63).contains(&text.len()) && !text.contains('\0')).then(|| text.to_owned())
}

/// A path for all calls to stand behind, without a slash at its end; the empty text for none.
pub(super) fn prefix(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./-".contains(&b);
    let fits = text.starts_with('/') && !text.contains("//") && text.bytes().all(plain);
    fits.then(|| text.trim_end_matches('/').to_owned())
}

/// An http or https URL with a host.
pub(super) fn web_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}
