//! Tables of moments: what an expression says where clocks are changed.

use proptest::prelude::*;

use super::*;
use crate::domain::invalid::Field;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

/// The moments behind `after`, up to `count`, as the clocks of the place show them.
fn moments(cron: &str, place: &str, after: &str, count: usize) -> Vec<String> {
    let recurrence = Recurrence::cron(cron, place).expect("it is good");
    let zone = Zone::parse(place).expect("it is good");
    let next = |last: &Timestamp| recurrence.after(*last);
    std::iter::successors(recurrence.after(at(after)), next).take(count).map(|at| zone.show(at)).collect()
}

fn check(cron: &str, place: &str, after: &str, expected: &[&str]) {
    assert_eq!(moments(cron, place, after, expected.len()), expected, "{cron} in {place}");
}

#[test]
fn a_fixed_time_in_a_skipped_hour_runs_once_right_after_it() {
    let new_york = "America/New_York";
    check("30 2 * * *", new_york, "2026-03-07T12:00:00Z", &["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]);
    // All that is skipped comes to one run, and so does what is due right after it anyway.
    check(
        "0,30 2,3 * * *",
        new_york,
        "2026-03-08T05:00:00Z",
        &["2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:00:00-04:00"],
    );
    check(
        "*/5 15 2 * * *",
        new_york,
        "2026-03-08T05:00:00Z",
        &["2026-03-08T03:00:00-04:00", "2026-03-09T02:15:00-04:00", "2026-03-09T02:15:05-04:00"],
    );
    check("15 2 * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", &["2026-03-29T03:00:00+02:00"]);
    // From the very second of the change on, it has been.
    check("15 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", &["2026-03-30T02:15:00+02:00"]);
    check("0 2 * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", &["2026-03-29T03:00:00+02:00"]);
    // Half an hour is skipped.
    check(
        "15 2 * * *",
        "Australia/Lord_Howe",
        "2025-10-04T12:00:00Z",
        &["2025-10-05T02:30:00+11:00", "2025-10-06T02:15:00+11:00"],
    );
    check("30 2 * * *", "Australia/Lord_Howe", "2025-10-04T12:00:00Z", &["2025-10-05T02:30:00+11:00"]);
    // Midnight is skipped.
    check(
        "0 0 * * *",
        "Africa/Cairo",
        "2025-04-24T12:00:00Z",
        &["2025-04-25T01:00:00+03:00", "2025-04-26T00:00:00+03:00"],
    );
    // A whole day is skipped.
    check(
        "0 12 * * *",
        "Pacific/Apia",
        "2011-12-29T00:00:00Z",
        &["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"],
    );
    check("0 12 30 * *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2011-12-31T00:00:00+14:00"]);
}

#[test]
fn a_fixed_time_in_a_repeated_hour_runs_once() {
    check(
        "30 1 * * *",
        "America/New_York",
        "2026-10-31T12:00:00Z",
        &["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
    );
    // Begun in the second pass, it has been.
    check("30 1 * * *", "America/New_York", "2026-11-01T06:10:00Z", &["2026-11-02T01:30:00-05:00"]);
    check(
        "0 2,3 * * *",
        "Europe/Berlin",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"],
    );
    check(
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T12:00:00Z",
        &["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
    );
    check(
        "30 23 * * *",
        "Africa/Cairo",
        "2025-10-30T12:00:00Z",
        &["2025-10-30T23:30:00+03:00", "2025-10-31T23:30:00+02:00"],
    );
    // A range of all hours is not a star: it names them.
    check(
        "0 0-23 * * *",
        "Europe/Berlin",
        "2026-10-24T23:30:00Z",
        &["2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"],
    );
}

#[test]
fn a_wildcard_goes_by_what_the_clocks_show() {
    check(
        "*/30 * * * *",
        "America/New_York",
        "2026-03-08T06:15:00Z",
        &["2026-03-08T01:30:00-05:00", "2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00"],
    );
    check(
        "30 * * * *",
        "Europe/Berlin",
        "2026-10-25T00:00:00Z",
        &["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"],
    );
    // Its hour is skipped, and with it all its minutes.
    check("*/20 2 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", &["2026-03-30T02:00:00+02:00"]);
    check(
        "*/30 2 * * *",
        "Europe/Berlin",
        "2026-10-25T00:00:00Z",
        &[
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-26T02:00:00+01:00",
        ],
    );
    check(
        "*/15 * * * *",
        "Australia/Lord_Howe",
        "2026-04-04T14:40:00Z",
        &[
            "2026-04-05T01:45:00+11:00",
            "2026-04-05T01:30:00+10:30",
            "2026-04-05T01:45:00+10:30",
            "2026-04-05T02:00:00+10:30",
        ],
    );
    check("0 * * * *", "Pacific/Apia", "2011-12-30T09:30:00Z", &["2011-12-31T00:00:00+14:00"]);
    check("0 12 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", &["2026-01-01T12:00:00+05:45"]);
}

#[test]
fn days_are_found_by_number_by_weekday_and_from_the_end() {
    let utc = |cron: &str, after: &str, expected: &[&str]| {
        let midnight: Vec<String> = expected.iter().map(|date| format!("{date}T00:00:00+00:00")).collect();
        assert_eq!(moments(cron, "UTC", after, expected.len()), midnight, "{cron}");
    };
    let start = "2025-12-31T12:00:00Z";
    utc("0 0 29 2 *", start, &["2028-02-29", "2032-02-29"]);
    utc("0 0 29 2 *", "2096-03-01T00:00:00Z", &["2104-02-29"]);
    utc("0 0 29 2 */7", "2088-03-01T00:00:00Z", &["2128-02-29"]);
    utc("0 0 L * *", start, &["2026-01-31", "2026-02-28", "2026-03-31"]);
    utc("0 0 L-30 * *", start, &["2026-01-01", "2026-03-01"]);
    // The nearest weekday, and never in another month.
    utc("0 0 15W * *", start, &["2026-01-15", "2026-02-16", "2026-03-16", "2026-04-15"]);
    utc("0 0 1W * *", start, &["2026-01-01", "2026-02-02", "2026-03-02", "2026-04-01"]);
    utc("0 0 1W 8 *", start, &["2026-08-03"]);
    utc("0 0 31W 5,1 *", start, &["2026-01-30", "2026-05-29"]);
    utc("0 0 LW * *", start, &["2026-01-30", "2026-02-27", "2026-03-31"]);
    utc("0 0 * * FRI#2", start, &["2026-01-09", "2026-02-13"]);
    utc("0 0 * * 5#5", start, &["2026-01-30", "2026-05-29"]);
    utc("0 0 * * 0L", start, &["2026-01-25", "2026-02-22"]);
    utc("0 0 ? * sat-sun", start, &["2026-01-03", "2026-01-04", "2026-01-10"]);
    utc("0 0 * * 7", start, &["2026-01-04"]);
    utc("0 0 * jan-mar/2 mon", start, &["2026-01-05", "2026-01-12", "2026-01-19", "2026-01-26", "2026-03-02"]);
    // Both restricted: either will do. One that begins with a star does not count as a restriction.
    utc("0 0 13 * FRI", start, &["2026-01-02", "2026-01-09", "2026-01-13"]);
    utc("0 0 */13 * FRI", start, &["2026-02-27", "2026-03-27", "2026-05-01"]);
    utc("@yearly", start, &["2026-01-01", "2027-01-01"]);
    utc("@Weekly", start, &["2026-01-04"]);
    utc("0 0 1 1 *", "9998-06-01T00:00:00Z", &["9999-01-01"]);
    check("5/20 59 23 31 12 *", "UTC", start, &["2025-12-31T23:59:05+00:00", "2025-12-31T23:59:25+00:00"]);
}

#[test]
fn there_is_nothing_behind_the_last_year() {
    let yearly = Recurrence::cron("@yearly", "UTC").expect("it is good");
    for late in [at("9999-06-01T00:00:00Z"), Timestamp::MAX] {
        assert_eq!(yearly.after(late), None);
    }
    assert!(yearly.after(Timestamp::MIN).is_some());
    let every = Recurrence::every(Duration::from_secs(3600), at("2026-01-01T00:00:00Z")).expect("it is good");
    assert_eq!(every.after(Timestamp::MAX), None);
    assert_eq!(every.after(Timestamp::MIN), Some(at("2026-01-01T00:00:00Z")));
}

#[test]
fn an_interval_goes_on_from_its_first_moment() {
    let every = Recurrence::every(Duration::from_secs(90), at("2026-03-08T06:59:00Z")).expect("it is good");
    for (after, next) in [
        ("2000-01-01T00:00:00Z", "2026-03-08T06:59:00Z"),
        ("2026-03-08T06:58:59.999999Z", "2026-03-08T06:59:00Z"),
        ("2026-03-08T06:59:00Z", "2026-03-08T07:00:30Z"),
        ("2026-03-08T07:00:29.999999Z", "2026-03-08T07:00:30Z"),
    ] {
        assert_eq!(every.after(at(after)), Some(at(next)), "{after}");
    }
}

#[test]
fn an_expression_that_makes_no_sense_is_refused_with_the_part_that_is_wrong() {
    for (cron, part) in [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * * *", "five fields"),
        ("@reboot", "five fields"),
        ("60 * * * *", "minute \"60\""),
        ("* 24 * * *", "hour \"24\""),
        ("60 * * * * *", "second \"60\""),
        ("* * 0 * *", "day \"0\""),
        ("* * 32 * *", "day \"32\""),
        ("* * L-31 * *", "day \"L-31\""),
        ("* * 32W * *", "day \"32W\""),
        ("* * * 13 *", "month \"13\""),
        ("* * * 1JAN *", "month \"1JAN\""),
        ("* * * * 8", "weekday \"8\""),
        ("* * * * FRI#6", "weekday \"FRI#6\""),
        ("* * * * FRI#0", "weekday \"FRI#0\""),
        ("* * * * L", "weekday \"L\""),
        ("*/0 * * * *", "the step 0 of its minute \"*/0\" is not a number from 1 to 60"),
        ("*/61 * * * *", "the step 61 of its minute \"*/61\" is not a number from 1 to 60"),
        ("*/300 * * * * *", "the step 300 of its second \"*/300\" is not a number from 1 to 60"),
        ("0 1-5/25 * * *", "the step 25 of its hour \"1-5/25\" is not a number from 1 to 24"),
        ("0 0 1/32 * *", "the step 32 of its day \"1/32\" is not a number from 1 to 31"),
        ("0 0 1 */13 *", "the step 13 of its month \"*/13\" is not a number from 1 to 12"),
        ("0 0 * * */8", "the step 8 of its weekday \"*/8\" is not a number from 1 to 7"),
        ("*/x * * * *", "minute \"*/x\" is not a list of"),
        ("5-1 * * * *", "minute \"5-1\""),
        ("1,,2 * * * *", "minute \"1,,2\""),
        ("+1 * * * *", "minute \"+1\""),
        ("١ * * * *", "minute \"١\""),
        ("* * ? ? ?", "month \"?\""),
        ("0 0 30 2 *", "fits none"),
        ("0 0 31 4,6,9,11 *", "fits none"),
        ("0 0 30W 2 *", "fits none"),
    ] {
        let error = Recurrence::cron(cron, "UTC").expect_err(cron);
        assert_eq!(error.field, Field::Cron);
        assert!(error.allowed.contains(part), "{cron}: {}", error.allowed);
    }
    let long = format!("{} * * * *", "1,".repeat(300));
    assert!(Recurrence::cron(&long, "UTC").expect_err("long").allowed.contains("512 bytes"));
    for place in ["", "Mars", "Europe/Berlin ", "../etc/passwd", "CEST-2", "local"] {
        assert_eq!(Recurrence::cron("* * * * *", place).expect_err(place).field, Field::TimeZone);
    }
    for span in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        assert_eq!(Recurrence::every(span, Timestamp::MIN).expect_err("it is bad").field, Field::Every);
    }
}

const PLACES: [&str; 8] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Santiago",
];

prop_compose! {
    /// An expression, whether it has a fixed time, and a place.
    fn crons()(
        second in prop_oneof![Just("0"), Just("*/20"), Just("7,9")],
        minute in prop_oneof![Just("*"), Just("*/7"), Just("0"), Just("30"), Just("15-45/10")],
        hour in prop_oneof![Just("*"), Just("*/3"), Just("0"), Just("1,2"), Just("0-3"), Just("23")],
        day in prop_oneof![Just("*"), Just("1"), Just("L"), Just("15W"), Just("*/10")],
        month in prop_oneof![Just("*"), Just("3,10"), Just("2"), Just("JUN-DEC")],
        weekday in prop_oneof![Just("*"), Just("SUN"), Just("1-5"), Just("SUN#1"), Just("6")],
        place in proptest::sample::select(&PLACES[..]),
    ) -> (String, &'static str) {
        (format!("{second} {minute} {hour} {day} {month} {weekday}"), place)
    }
}

proptest! {
    #[test]
    fn the_next_moment_is_the_first_that_is_later(
        (expression, place) in crons(),
        // From 2000 to 2060.
        after in 946_684_800_000_000_i64..2_840_140_800_000_000,
    ) {
        let recurrence = Recurrence::cron(&expression, place).unwrap();
        let Recurrence::Cron { cron, zone } = &recurrence else { unreachable!() };
        let after = Timestamp::from_micros(after);
        let next = recurrence.after(after).unwrap();
        prop_assert!(next > after);
        // Nothing lies between: a moment from in between has the same next.
        let between = Timestamp::from_micros(after.micros() + (next.micros() - after.micros()) / 2);
        let again = recurrence.after(between.min(Timestamp::from_micros(next.micros() - 1)));
        prop_assert_eq!(again, Some(next));
        // The clocks show what the expression says, or have just been put forward over it.
        let shown = |at: Timestamp| zone.show(at)[..19].parse::<jiff::civil::DateTime>().unwrap();
        let (local, before) = (shown(next), shown(Timestamp::from_micros(next.micros() - 1_000_000)));
        let second = jiff::SignedDuration::from_secs(1);
        let fits = cron.first(local, local + second) == Some(local);
        let skipped = cron.is_fixed_time() && cron.first(before + second, local).is_some();
        prop_assert!(fits || skipped, "{} {} {}", expression, place, zone.show(next));
    }

    #[test]
    fn the_last_moment_is_found_as_by_walking(
        (expression, place) in crons(),
        from in 946_684_800_000_000_i64..2_840_140_800_000_000,
        days in 0_i64..40,
    ) {
        let recurrence = Recurrence::cron(&expression, place).unwrap();
        let until = Timestamp::from_micros(from + days * 86_400_000_000);
        let from = Timestamp::from_micros(from);
        let last = recurrence.last_within(from, until);
        match last {
            Some(last) => {
                prop_assert!(from <= last && last <= until);
                prop_assert!(recurrence.after(last).unwrap() > until);
                prop_assert_eq!(recurrence.after(Timestamp::from_micros(last.micros() - 1)), Some(last));
            }
            None => prop_assert!(recurrence.after(Timestamp::from_micros(from.micros() - 1)).unwrap() > until),
        }
    }

    #[test]
    fn reading_never_panics(expression in "[0-9A-Z*/,#LW? -]{0,30}", place in "\\PC{0,20}", after: i64) {
        if let Ok(recurrence) = Recurrence::cron(&expression, "Europe/Berlin") {
            let _ = recurrence.after(Timestamp::from_micros(after));
        }
        let _ = Recurrence::cron("* * * * *", &place);
    }
}
