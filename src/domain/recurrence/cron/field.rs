//! The fields of a cron expression, as sets.

use std::fmt;
use std::ops::RangeInclusive;

use jiff::civil::{Date, Weekday};

use crate::domain::invalid::head;

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// A list that names something more often than this says nothing new.
const ITEMS_MAX: usize = 100;

/// What is wrong with a field: goes on after "a cron expression; ".
#[derive(Debug)]
pub struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the numbers of a field mean.
#[derive(Clone, Copy)]
struct Meaning<'a> {
    /// The field's name, for an error.
    field: &'static str,
    /// The field as it was written.
    text: &'a str,
    least: u8,
    most: u8,
    /// Words for its numbers, in their order from the least one.
    names: &'static [&'static str],
}

impl Meaning<'_> {
    fn wrong(&self) -> Wrong {
        let Self { field, text, least, most, names } = self;
        let names = match names.first().zip(names.last()) {
            Some((first, last)) => format!(" or {first} to {last}"),
            None => String::new(),
        };
        let more = match *field {
            "day" => ", L, L-3, 15W or LW",
            "weekday" => ", FRI#2 or FRIL",
            _ => "",
        };
        let forms = format!("a list of *, numbers from {least} to {most}{names}, ranges a-b and steps */n{more}");
        Wrong(format!("its {field} {:?} is not {forms}", head(text)))
    }

    fn number(&self, text: &str) -> Result<u8, Wrong> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let number = match named.and_then(|index| u8::try_from(index).ok()) {
            Some(index) => Some(self.least + index),
            None => digits(text),
        };
        number.filter(|number| (self.least..=self.most).contains(number)).ok_or_else(|| self.wrong())
    }

    /// The numbers of one item of the list, a bit each.
    fn item(&self, item: &str) -> Result<u64, Wrong> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.least, self.most),
            Some((first, last)) => self.range(first, last)?,
            None => {
                let first = self.number(range)?;
                (first, if step.is_some() { self.most } else { first })
            }
        };
        let step = match step {
            Some(step) => self.step(step)?,
            None => 1,
        };
        Ok((first..=last).step_by(usize::from(step)).fold(0, |bits, number| bits | 1 << number))
    }

    /// A step is no longer than the field: a longer one would pass over all but the first number, and mean something else than
    /// whoever wrote it thinks.
    fn step(&self, step: &str) -> Result<u8, Wrong> {
        // Sunday has two numbers.
        let most = self.most - self.least + u8::from(self.field != "weekday");
        let is_number = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
        match digits(step).filter(|step| (1..=most).contains(step)) {
            Some(step) => Ok(step),
            None if is_number => {
                let (field, text, step) = (self.field, head(self.text), head(step));
                Err(Wrong(format!("the step {step} of its {field} {text:?} is not a number from 1 to {most}")))
            }
            None => Err(self.wrong()),
        }
    }

    fn range(&self, first: &str, last: &str) -> Result<(u8, u8), Wrong> {
        let (first, mut last) = (self.number(first)?, self.number(last)?);
        // A week may end on a Sunday.
        if self.field == "weekday" && last == 0 && first > 0 {
            last = 7;
        }
        match first <= last {
            true => Ok((first, last)),
            false => Err(self.wrong()),
        }
    }
}

fn digits(text: &str) -> Option<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn items<'a>(meaning: &Meaning<'a>) -> Result<impl Iterator<Item = &'a str>, Wrong> {
    match meaning.text.split(',').count() <= ITEMS_MAX {
        true => Ok(meaning.text.split(',')),
        false => Err(meaning.wrong()),
    }
}

/// Whether a field leaves all open: it begins with a star.
fn is_star(text: &str) -> bool {
    text.starts_with(['*', '?'])
}

/// A set of numbers below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    bits: u64,
    /// It begins with a star.
    pub is_star: bool,
}

impl Numbers {
    /// Reads a field of numbers within `allowed`, whose least one `names` begins at.
    pub fn parse(
        field: &'static str,
        text: &str,
        allowed: RangeInclusive<u8>,
        names: &'static [&'static str],
    ) -> Result<Self, Wrong> {
        let meaning = Meaning { field, text, least: *allowed.start(), most: *allowed.end(), names };
        let bits = items(&meaning)?.try_fold(0, |bits, item| Ok(bits | meaning.item(item)?))?;
        Ok(Self { bits, is_star: is_star(text) })
    }

    /// Whether it has the number.
    pub fn has(self, number: u8) -> bool {
        self.first(number) == Some(number)
    }

    /// The least of its numbers that is not below `number`.
    pub fn first(self, number: u8) -> Option<u8> {
        let rest = self.bits.checked_shr(u32::from(number)).filter(|rest| *rest != 0)?;
        u8::try_from(rest.trailing_zeros()).ok().map(|skipped| number + skipped)
    }
}

/// Days of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    numbers: u64,
    /// Days before the last one.
    from_last: u64,
    /// Days whose nearest weekday is meant.
    nearest: u64,
    /// The last weekday is meant.
    last_weekday: bool,
    /// It begins with a star.
    pub is_star: bool,
}

impl Days {
    /// Reads the field.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let meaning = Meaning { field: "day", text, least: 1, most: 31, names: &[] };
        let mut days = Self { numbers: 0, from_last: 0, nearest: 0, last_weekday: false, is_star: is_star(text) };
        for item in items(&meaning)? {
            let upper = item.to_ascii_uppercase();
            if upper == "?" {
                days.numbers |= meaning.item("*")?;
            } else if upper == "L" {
                days.from_last |= 1;
            } else if upper == "LW" {
                days.last_weekday = true;
            } else if let Some(before) = upper.strip_prefix("L-") {
                days.from_last |= 1 << digits(before).filter(|days| *days <= 30).ok_or_else(|| meaning.wrong())?;
            } else if let Some(day) = upper.strip_suffix('W') {
                days.nearest |= 1 << meaning.number(day)?;
            } else {
                days.numbers |= meaning.item(item)?;
            }
        }
        Ok(days)
    }

    /// Whether it has the day.
    pub fn fits(&self, date: Date) -> bool {
        let (day, last) = (date.day().unsigned_abs(), date.days_in_month().unsigned_abs());
        let has = |bits: u64, number: u8| bits >> number & 1 == 1;
        has(self.numbers, day)
            || has(self.from_last, last - day)
            || is_weekday(date) && self.fits_nearest(date, day, last)
    }

    /// Whether a day from Monday to Friday is the nearest to one that is meant, within its month.
    fn fits_nearest(&self, date: Date, day: u8, last: u8) -> bool {
        let has = |number: u8| number <= last && self.nearest >> number & 1 == 1;
        let is_first_monday = date.weekday() == Weekday::Monday && day == 3;
        let is_last_friday = date.weekday() == Weekday::Friday && day + 2 >= last;
        has(day)
            || date.weekday() == Weekday::Monday && has(day - 1)
            || date.weekday() == Weekday::Friday && has(day + 1)
            // A Saturday the 1st has no Friday in its month, and a Sunday that is the last day no Monday.
            || is_first_monday && has(1)
            || is_last_friday && day + 2 == last && has(last)
            || self.last_weekday && (day == last || is_last_friday)
    }
}

fn is_weekday(date: Date) -> bool {
    !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday)
}

/// Days of the week, from Sunday as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weekdays {
    every: u64,
    /// Those that are meant once a month: the first, the second and so on.
    nth: [u64; 5],
    /// Those whose last in the month is meant.
    last: u64,
    /// It begins with a star.
    pub is_star: bool,
}

impl Weekdays {
    /// Reads the field.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let meaning = Meaning { field: "weekday", text, least: 0, most: 7, names: &WEEKDAYS };
        let mut weekdays = Self { every: 0, nth: [0; 5], last: 0, is_star: is_star(text) };
        // Sunday is 7 as well.
        let number = |text: &str| meaning.number(text).map(|number| number % 7);
        for item in items(&meaning)? {
            let upper = item.to_ascii_uppercase();
            if upper == "?" {
                weekdays.every |= meaning.item("*")?;
            } else if let Some((day, nth)) = upper.split_once('#') {
                let nth = digits(nth).and_then(|nth| nth.checked_sub(1)).map(usize::from);
                let place = nth.and_then(|nth| weekdays.nth.get_mut(nth)).ok_or_else(|| meaning.wrong())?;
                *place |= 1 << number(day)?;
            } else if let Some(day) = upper.strip_suffix('L') {
                weekdays.last |= 1 << number(day)?;
            } else {
                weekdays.every |= meaning.item(item)?;
            }
        }
        weekdays.every |= weekdays.every >> 7 & 1;
        Ok(weekdays)
    }

    /// Whether it has the day.
    pub fn fits(&self, date: Date) -> bool {
        let (day, weekday) = (date.day().unsigned_abs(), date.weekday().to_sunday_zero_offset().unsigned_abs());
        let has = |bits: u64| bits >> weekday & 1 == 1;
        let nth = self.nth.get(usize::from((day - 1) / 7)).copied().unwrap_or_default();
        has(self.every) || has(nth) || has(self.last) && day + 7 > date.days_in_month().unsigned_abs()
    }
}
