//! Which scopes a row belongs to, and how a change moves it between them.

use std::sync::LazyLock;

use crate::domain::limits::ROW_SCOPES_MAX;
use crate::domain::scope::Scope;
use crate::domain::shard::Shard;
use crate::feed::pgoutput::{Column, Relation};
use crate::feed::sink::Side;

/// The oids of `text[]` and `varchar[]`: a row may be in several scopes.
const TEXT_ARRAYS: [u32; 2] = [1009, 1015];
/// The oid of `char(n)`: PostgreSQL pads its text, and takes the spaces for no part of the value.
const PADDED: u32 = 1042;

/// Stands for every scope that no reader can ask for (too long, or with other characters), so that the index holds one
/// entry for all of them. No reader can ask for this one either.
const UNASKABLE: &str = "(unaskable)";

/// The scopes of `walclock.timers`, by shard.
static TIMERS: LazyLock<Vec<String>> = LazyLock::new(|| Shard::all().map(Shard::scope).collect());

/// What names the scopes of a table's rows.
#[derive(Debug)]
pub(super) enum Selector {
    /// Nothing: its rows are in the empty scope.
    None,
    /// The text of the column at this place.
    Text(usize),
    /// The text of the column at this place, less the spaces at its end.
    Padded(usize),
    /// The elements of the array at this place.
    Array(usize),
    /// The shard of a timer, which follows from these two columns.
    Timer { namespace: usize, id: usize },
}

impl Selector {
    /// The selector of a table, with the preferred column names in `columns`.
    pub(super) fn of(relation: &Relation<'_>, columns: &[String]) -> Self {
        let place = |name: &str| relation.attributes.into_iter().position(|column| column.name == name.as_bytes());
        if (relation.schema, relation.name) == (b"walclock", b"timers")
            && let (Some(namespace), Some(id)) = (place("namespace"), place("id"))
        {
            return Self::Timer { namespace, id };
        }
        let found = columns.iter().find_map(|name| place(name));
        match found.and_then(|at| Some((at, relation.attributes.into_iter().nth(at)?))) {
            None => Self::None,
            Some((at, column)) if TEXT_ARRAYS.contains(&column.type_id) => Self::Array(at),
            Some((at, column)) if column.type_id == PADDED => Self::Padded(at),
            Some((at, _)) => Self::Text(at),
        }
    }

    /// The scopes of a row, whose value at a place `column` tells; none where it does not tell a value that counts.
    pub(super) fn scopes<'a>(&self, column: impl Fn(usize) -> Option<Column<'a>>) -> Option<Scopes<'a>> {
        let text = |place| match column(place)? {
            Column::Text(text) => Some(text),
            Column::Null => Some(&b""[..]),
            Column::Unchanged | Column::Binary(_) => None,
        };
        match *self {
            Self::None => Some(Scopes::One("")),
            Self::Text(place) => Some(Scopes::One(askable(text(place)?))),
            Self::Padded(place) => {
                let text = text(place)?;
                let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last.saturating_add(1));
                Some(Scopes::One(askable(text.get(..end).unwrap_or_default())))
            }
            Self::Array(place) => Some(Scopes::of_array(text(place)?)),
            Self::Timer { namespace, id } => {
                let (namespace, id) = (text(namespace)?, text(id)?);
                let shard = Shard::of(&String::from_utf8_lossy(namespace), &String::from_utf8_lossy(id));
                Some(Scopes::One(TIMERS.get(usize::from(shard.0)).map_or(UNASKABLE, String::as_str)))
            }
        }
    }
}

/// The scopes of one row, in order and without duplicates, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scopes<'a> {
    /// The usual case.
    One(&'a str),
    /// From an array.
    Many(Vec<&'a str>),
}

impl<'a> Scopes<'a> {
    /// The empty scope.
    pub(super) const EMPTY: Self = Self::One("");
    /// Some that nobody has told: the row is nobody's.
    pub(super) const UNKNOWN: Self = Self::One(UNASKABLE);

    fn as_slice(&self) -> &[&'a str] {
        match self {
            Self::One(scope) => std::slice::from_ref(scope),
            Self::Many(scopes) => scopes,
        }
    }

    /// The elements of PostgreSQL's text for an array, the first [`ROW_SCOPES_MAX`] of them. Nulls and empty texts in it name
    /// no scope.
    fn of_array(text: &'a [u8]) -> Self {
        let mut elements = elements(text).filter(|element| !element.is_empty());
        let mut scopes: Vec<&str> = elements.by_ref().take(ROW_SCOPES_MAX).map(askable).collect();
        if elements.next().is_some() {
            metrics::counter!("walclock_feed_scopes_cut_total").increment(1);
        }
        scopes.sort_unstable();
        scopes.dedup();
        match *scopes.as_slice() {
            [] => Self::EMPTY,
            [one] => Self::One(one),
            [..] => Self::Many(scopes),
        }
    }
}

/// A scope by its bytes. One that no reader can ask for is counted.
fn askable(text: &[u8]) -> &str {
    match str::from_utf8(text) {
        Ok(text) if text.is_empty() || Scope::allows(text) => text,
        Ok(_) | Err(_) => {
            metrics::counter!("walclock_feed_scopes_unaskable_total").increment(1);
            UNASKABLE
        }
    }
}

/// The elements of an array in PostgreSQL's text form, of any number of dimensions; a null is an empty element.
///
/// PostgreSQL writes an element that a scope could be bare, or in quotes where it reads `null`. What has a backslash
/// in it is no scope, so escapes stay as they are.
fn elements(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Bounds other than from 1 stand in front: `[2:3]={a,b}`.
    let start = text.iter().position(|byte| *byte == b'{').unwrap_or(text.len());
    let mut rest = text.get(start..).unwrap_or_default();
    std::iter::from_fn(move || {
        while let Some((b'{' | b'}' | b',', behind)) = rest.split_first() {
            rest = behind;
        }
        let (first, behind) = rest.split_first()?;
        if *first == b'"' {
            let (element, behind) = behind.split_at(closing_quote(behind));
            rest = behind.get(1..).unwrap_or_default();
            return Some(element);
        }
        let end = rest.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(rest.len());
        let (element, behind) = rest.split_at(end);
        rest = behind;
        Some(if element == b"NULL" { b"" } else { element })
    })
}

/// Where a quoted element ends: at the first quote without a backslash before it.
fn closing_quote(text: &[u8]) -> usize {
    let mut escaped = false;
    let is_end = |byte: &u8| {
        let end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        end
    };
    text.iter().position(is_end).unwrap_or(text.len())
}

/// How a change touches scopes, as a sink wants to know it.
#[derive(Debug)]
pub(super) enum Sides<'a> {
    One([(Side, &'a str); 1]),
    Two([(Side, &'a str); 2]),
    Many(Vec<(Side, &'a str)>),
}

impl<'a> Sides<'a> {
    /// A row that is where it was.
    pub(super) fn staying(scopes: &Scopes<'a>) -> Self {
        match scopes {
            Scopes::One(scope) => Self::One([(Side::Stays, scope)]),
            Scopes::Many(scopes) => Self::Many(scopes.iter().map(|scope| (Side::Stays, *scope)).collect()),
        }
    }

    /// A row that had the scopes `before` and now has those `after`.
    pub(super) fn moving(before: &Scopes<'a>, after: &Scopes<'a>) -> Self {
        if before == after {
            return Self::staying(after);
        }
        if let (Scopes::One(left), Scopes::One(entered)) = (before, after) {
            return Self::Two([(Side::Left, left), (Side::Entered, entered)]);
        }
        let (before, after) = (before.as_slice(), after.as_slice());
        let left = before.iter().filter(|scope| after.binary_search(scope).is_err()).map(|scope| (Side::Left, *scope));
        let now = after.iter().map(|scope| match before.binary_search(scope) {
            Ok(_) => (Side::Stays, *scope),
            Err(_) => (Side::Entered, *scope),
        });
        Self::Many(left.chain(now).collect())
    }

    /// All of them.
    pub(super) fn as_slice(&self) -> &[(Side, &'a str)] {
        match self {
            Self::One(sides) => sides,
            Self::Two(sides) => sides,
            Self::Many(sides) => sides,
        }
    }

    /// Whether some scope is on this side.
    pub(super) fn any(&self, side: Side) -> bool {
        self.as_slice().iter().any(|(of, _)| *of == side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_array(text: &str) -> Vec<&str> {
        Scopes::of_array(text.as_bytes()).as_slice().to_vec()
    }

    #[test]
    fn arrays_name_their_elements() {
        for (text, scopes) in [
            ("{}", vec![""]),
            ("{NULL}", vec![""]),
            ("{\"\"}", vec![""]),
            ("{a}", vec!["a"]),
            ("{b,a,b}", vec!["a", "b"]),
            ("{a,NULL,\"\"}", vec!["a"]),
            ("{\"null\",\"NULL\"}", vec!["NULL", "null"]),
            ("{{a,b},{c,d}}", vec!["a", "b", "c", "d"]),
            ("[2:3]={a,b}", vec!["a", "b"]),
            ("{\"a b\",c}", vec![UNASKABLE, "c"]),
            ("{\"a\\\"},b\",c}", vec![UNASKABLE, "c"]),
            ("{\"\\\\\",c}", vec![UNASKABLE, "c"]),
            ("{org:1/x.y-z}", vec!["org:1/x.y-z"]),
            ("{\"unclosed", vec!["unclosed"]),
        ] {
            assert_eq!(of_array(text), scopes, "{text}");
        }
    }

    #[test]
    fn a_row_is_in_so_many_scopes_at_most() {
        let array = |count: usize| format!("{{{}}}", (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
        for count in [ROW_SCOPES_MAX, ROW_SCOPES_MAX + 1, 3 * ROW_SCOPES_MAX] {
            let text = array(count);
            let scopes = of_array(&text);
            assert_eq!(scopes.len(), ROW_SCOPES_MAX);
            assert!(scopes.iter().all(|scope| scope.parse::<usize>().unwrap() < ROW_SCOPES_MAX), "the first of them");
        }
    }

    #[test]
    fn what_nobody_can_ask_for_is_one_scope() {
        let long = "x".repeat(256);
        for text in ["a b", "ü", "a*", long.as_str()] {
            assert_eq!(askable(text.as_bytes()), UNASKABLE, "{text}");
        }
        assert_eq!(askable(b"\xff"), UNASKABLE);
        assert!(!Scope::allows(UNASKABLE));
        assert_eq!(askable(&long.as_bytes()[1..]), &long[1..]);
    }

    #[test]
    fn what_nobody_can_ask_for_is_counted() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            of_array("{a b,a,NULL,ü}");
            askable(b"a");
            askable(b"");
            askable(b"a*");
        });
        let told = recorder.handle().render();
        assert!(told.contains("walclock_feed_scopes_unaskable_total 3\n"), "{told}");
    }

    #[test]
    fn a_move_tells_every_scope_its_side() {
        use Side::{Entered, Left, Stays};
        for (before, after, sides) in [
            ("{a}", "{a}", vec![(Stays, "a")]),
            ("{a}", "{b}", vec![(Left, "a"), (Entered, "b")]),
            ("{}", "{a}", vec![(Left, ""), (Entered, "a")]),
            ("{a,b}", "{b,c}", vec![(Left, "a"), (Stays, "b"), (Entered, "c")]),
            ("{a,b}", "{b,a}", vec![(Stays, "a"), (Stays, "b")]),
            ("{a}", "{a,b}", vec![(Stays, "a"), (Entered, "b")]),
            ("{a,b}", "{a}", vec![(Left, "b"), (Stays, "a")]),
        ] {
            let (from, to) = (Scopes::of_array(before.as_bytes()), Scopes::of_array(after.as_bytes()));
            assert_eq!(Sides::moving(&from, &to).as_slice(), sides, "{before} to {after}");
        }
    }
}
