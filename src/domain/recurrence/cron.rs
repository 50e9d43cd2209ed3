//! Cron expressions: five fields, or six with seconds first, and what they say of a local time.

mod field;

use jiff::civil::{Date, DateTime, Time};

use crate::domain::invalid::{Field, Invalid};
use crate::domain::limits;
use field::{Days, Numbers, Weekdays};

/// The short forms, each with its five fields.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// A cron expression that fits some day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    seconds: Numbers,
    minutes: Numbers,
    hours: Numbers,
    days: Days,
    months: Numbers,
    weekdays: Weekdays,
}

impl Cron {
    /// Reads an expression. Each field is a list of `*`, numbers, ranges `a-b` and steps `*/n`, `a-b/n`, `a/n`; months and
    /// weekdays have English names of three letters, and Sunday is 0 and 7. Days also have `L` (the last), `L-3`, `15W` (the
    /// weekday nearest to the 15th) and `LW`, weekdays `FRI#2` (the second Friday) and `FRIL` (the last one). `?` is `*` in both.
    ///
    /// Where days and weekdays are both restricted, a day that fits one of them fits; a field that begins with `*` restricts
    /// nothing in this sense.
    pub fn parse(expression: &str) -> Result<Self, Invalid> {
        let refuse = |allowed: String| Invalid::new(Field::Cron, expression, allowed);
        if expression.len() > limits::CRON_BYTES_MAX {
            return Err(refuse(format!("a cron expression of at most {} bytes", limits::CRON_BYTES_MAX)));
        }
        let nickname = NICKNAMES.iter().find(|(name, _)| expression.trim().eq_ignore_ascii_case(name));
        let fields: Vec<&str> = nickname.map_or(expression, |(_, fields)| fields).split_ascii_whitespace().collect();
        let (seconds, minutes, hours, days, months, weekdays) = match *fields.as_slice() {
            [minutes, hours, days, months, weekdays] => ("0", minutes, hours, days, months, weekdays),
            [seconds, minutes, hours, days, months, weekdays] => (seconds, minutes, hours, days, months, weekdays),
            _ => {
                let allowed = "a cron expression of five fields (minute, hour, day, month, weekday), of six with the second \
                               first, or one of @hourly, @daily, @weekly, @monthly and @yearly";
                return Err(refuse(allowed.to_owned()));
            }
        };
        let read = || {
            Ok(Self {
                seconds: Numbers::parse("second", seconds, 0..=59, &[])?,
                minutes: Numbers::parse("minute", minutes, 0..=59, &[])?,
                hours: Numbers::parse("hour", hours, 0..=23, &[])?,
                days: Days::parse(days)?,
                months: Numbers::parse("month", months, 1..=12, &MONTHS)?,
                weekdays: Weekdays::parse(weekdays)?,
            })
        };
        let cron = read().map_err(|wrong: field::Wrong| refuse(format!("a cron expression; {wrong}")))?;
        match cron.first(FITS_FROM, FITS_UNTIL) {
            Some(_) => Ok(cron),
            None => Err(refuse("a cron expression that fits some day, and this one fits none".to_owned())),
        }
    }

    /// Whether it names its minutes and hours, so that a change of time may skip or repeat them.
    pub fn is_fixed_time(&self) -> bool {
        !self.minutes.is_star && !self.hours.is_star
    }

    /// The first local time that it fits, not before `from` and before `until`.
    pub(super) fn first(&self, from: DateTime, until: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut earliest = from.time();
        loop {
            date = self.first_day(date, until.date())?;
            if date != from.date() {
                earliest = Time::midnight();
            }
            if let Some(time) = self.first_time(earliest) {
                return Some(date.to_datetime(time)).filter(|at| *at < until);
            }
            date = date.tomorrow().ok()?;
        }
    }

    /// The first day that it fits, from `date` to `last`.
    fn first_day(&self, mut date: Date, last: Date) -> Option<Date> {
        while date <= last {
            if !self.months.has(date.month().unsigned_abs()) {
                date = date.last_of_month().tomorrow().ok()?;
            } else if self.fits(date) {
                return Some(date);
            } else {
                date = date.tomorrow().ok()?;
            }
        }
        None
    }

    fn fits(&self, date: Date) -> bool {
        let (day, weekday) = (self.days.fits(date), self.weekdays.fits(date));
        match self.days.is_star || self.weekdays.is_star {
            true => day && weekday,
            false => day || weekday,
        }
    }

    /// The first time of a day that it fits, not before `earliest`.
    fn first_time(&self, earliest: Time) -> Option<Time> {
        let [mut hour, mut minute, mut second] =
            [earliest.hour(), earliest.minute(), earliest.second()].map(i8::unsigned_abs);
        loop {
            let next = self.hours.first(hour)?;
            if next > hour {
                (hour, minute, second) = (next, 0, 0);
            }
            let Some(next) = self.minutes.first(minute) else {
                (hour, minute, second) = (hour + 1, 0, 0);
                continue;
            };
            if next > minute {
                (minute, second) = (next, 0);
            }
            let Some(next) = self.seconds.first(second) else {
                (minute, second) = (minute + 1, 0);
                continue;
            };
            let [hour, minute, next] = [hour, minute, next].map(u8::cast_signed);
            return Time::new(hour, minute, next, 0).ok();
        }
    }
}

/// From here to there every kind of day has been: a 29th of February that is the fifth Tuesday, across a year that has none.
const FITS_FROM: DateTime = jiff::civil::date(2072, 1, 1).at(0, 0, 0, 0);
const FITS_UNTIL: DateTime = jiff::civil::date(2113, 1, 1).at(0, 0, 0, 0);
