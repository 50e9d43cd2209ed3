//! What is decided, for one schedule after the other. Moments are told in seconds from a round one.

use proptest::prelude::*;

use super::*;

const LEAD: Duration = Duration::from_secs(2);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_767_225_600_000_000 + seconds * 1_000_000)
}

/// Every minute, with the moment 0 next.
fn minutely() -> Schedule {
    Schedule {
        key: TimerKey::new("n", "report"),
        rule: Rule::new(When::Cron("* * * * *".to_owned())),
        created_at: at(-7200),
        changed_at: at(-7200),
        next_at: at(0),
        buffered_at: None,
        active: false,
        revision: 0,
    }
}

fn with(change: impl FnOnce(&mut Schedule)) -> Schedule {
    let mut schedule = minutely();
    change(&mut schedule);
    schedule
}

/// A plan in words: what becomes of which second, and the next one.
fn words(schedule: &Schedule, now: i64) -> String {
    let plan = plan(schedule, at(now), LEAD);
    let second = |at: Timestamp| (at.micros() - self::at(0).micros()) / 1_000_000;
    let mut words = Vec::new();
    if plan.release_at.is_some() {
        words.push("release".to_owned());
    }
    for occurrence in &plan.occurrences {
        let outcome = match occurrence.outcome {
            Outcome::Fire => "fire",
            Outcome::Buffer => "buffer",
            Outcome::Skip(Reason::Missed) => "miss",
            Outcome::Skip(Reason::Overlap | Reason::Waiting | Reason::Taken) => "skip",
            Outcome::Skip(Reason::Overtaken) => "overtaken",
        };
        let through = occurrence.through.map(|at| format!("..{}", second(at))).unwrap_or_default();
        words.push(format!("{outcome} {}{through}", second(occurrence.scheduled_for)));
    }
    if plan.cancel {
        words.push("cancel".to_owned());
    }
    let next = if plan.next_at == Timestamp::MAX { "none".to_owned() } else { second(plan.next_at).to_string() };
    words.push(format!("next {next}"));
    words.join(", ")
}

#[test]
fn a_moment_is_fired_when_it_comes_or_a_little_ahead_where_that_is_certain() {
    for (now, free, busy) in [
        (-3, "next 0", "next 0"),
        (-2, "fire 0, next 60", "next 0"),
        (0, "fire 0, next 60", "skip 0, next 60"),
        (29, "fire 0, next 60", "skip 0, next 60"),
        (58, "miss 0, fire 60, next 120", "miss 0, next 60"),
    ] {
        assert_eq!(words(&with(|s| s.rule.catch_up = CatchUp::None), now), free, "{now}");
        assert_eq!(
            words(
                &with(|s| {
                    s.active = true;
                    s.rule.catch_up = CatchUp::None;
                }),
                now
            ),
            busy,
            "{now}"
        );
    }
}

#[test]
fn each_policy_has_its_way_with_a_callback_that_is_not_over() {
    for (overlap, waiting, active, decided) in [
        (Overlap::Skip, None, true, "skip 0, next 60"),
        (Overlap::Allow, None, true, "fire 0, next 60"),
        (Overlap::BufferOne, None, false, "fire 0, next 60"),
        (Overlap::BufferOne, None, true, "buffer 0, next 60"),
        (Overlap::BufferOne, Some(-60), true, "skip 0, next 60"),
        (Overlap::BufferOne, Some(-60), false, "release, buffer 0, next 60"),
        (Overlap::CancelOther, None, false, "fire 0, next 60"),
        (Overlap::CancelOther, None, true, "fire 0, cancel, next 60"),
    ] {
        let schedule = with(|s| {
            s.rule.overlap = overlap;
            s.buffered_at = waiting.map(at);
            s.active = active;
        });
        assert_eq!(words(&schedule, 1), decided, "{overlap:?} {waiting:?} {active}");
    }
    // Ahead of its moment nothing is ended, and what waits is let go whether something is due or not.
    let ahead = with(|s| {
        s.rule.overlap = Overlap::CancelOther;
        s.active = true;
    });
    assert_eq!(words(&ahead, -1), "next 0");
    let waiting = with(|s| {
        s.rule.overlap = Overlap::BufferOne;
        s.buffered_at = Some(at(-60));
    });
    assert_eq!(words(&waiting, -30), "release, next 0");
}

#[test]
fn what_was_missed_goes_by_the_catch_up_policy() {
    let missed = |catch_up, window, max, now| {
        let schedule = with(|s| {
            s.rule.overlap = Overlap::Allow;
            s.rule.catch_up = catch_up;
            s.rule.catch_up_window = Duration::from_secs(window);
            s.rule.catch_up_max = max;
        });
        words(&schedule, now)
    };
    let (none, last, all) = (CatchUp::None, CatchUp::Last, CatchUp::All);
    // An outage of ten minutes, whose last moment is half a minute and more ago.
    assert_eq!(missed(none, 9999, 100, 640), "miss 0..600, next 660");
    assert_eq!(missed(last, 9999, 100, 640), "miss 0..540, fire 600, next 660");
    assert_eq!(missed(last, 30, 100, 640), "miss 0..600, next 660");
    assert_eq!(missed(all, 200, 100, 640), "miss 0..420, fire 480, fire 540, fire 600, next 660");
    assert_eq!(missed(all, 9999, 2, 640), "miss 0..480, fire 540, fire 600, next 660");
    assert_eq!(missed(all, 100, 100, 100), "fire 0, fire 60, next 120");
    assert_eq!(missed(last, 100, 100, 35), "fire 0, next 60");
    // The last moment is only just over: it is in time, and those before it were missed.
    assert_eq!(missed(none, 9999, 100, 610), "miss 0..540, fire 600, next 660");
    assert_eq!(missed(last, 9999, 100, 610), "miss 0..540, fire 600, next 660");
    assert_eq!(missed(all, 9999, 2, 610), "miss 0..420, fire 480, fire 540, fire 600, next 660");
}

#[test]
fn of_those_that_are_made_up_for_each_counts_for_the_next() {
    let all = |overlap| {
        with(|s| {
            s.rule.overlap = overlap;
            s.rule.catch_up = CatchUp::All;
        })
    };
    assert_eq!(words(&all(Overlap::Skip), 160), "fire 0, skip 60, skip 120, next 180");
    assert_eq!(words(&all(Overlap::BufferOne), 160), "fire 0, buffer 60, skip 120, next 180");
    assert_eq!(words(&all(Overlap::CancelOther), 160), "overtaken 0, overtaken 60, fire 120, next 180");
}

#[test]
fn a_new_schedule_begins_behind_its_making_and_within_its_time() {
    let new = |change: fn(&mut Schedule)| {
        with(|s| {
            s.next_at = Timestamp::MIN;
            s.changed_at = at(-30);
            s.created_at = at(-30);
            change(s);
        })
    };
    assert_eq!(words(&new(|_| {}), -29), "next 0");
    assert_eq!(words(&new(|s| s.changed_at = at(0)), 0), "next 60");
    assert_eq!(words(&new(|s| s.rule.start_at = Some(at(120))), 0), "next 120");
    assert_eq!(words(&new(|s| s.rule.start_at = Some(at(121))), 0), "next 180");
    assert_eq!(words(&new(|s| s.rule.end_at = Some(at(0))), 1), "fire 0, next none");
    assert_eq!(words(&new(|s| s.rule.end_at = Some(at(-1))), 1), "next none");
    let every = |change: fn(&mut Schedule)| {
        let mut schedule = new(|s| s.rule.when = When::Every(Duration::from_secs(45)));
        change(&mut schedule);
        schedule
    };
    assert_eq!(words(&every(|_| {}), -29), "next 15");
    assert_eq!(words(&every(|s| s.rule.start_at = Some(at(-100))), -29), "next -10");
    assert_eq!(words(&every(|s| s.rule.start_at = Some(at(100))), -29), "next 100");
    assert_eq!(words(&with(|s| s.next_at = Timestamp::MAX), 1000), "next none");
    // What ends while nobody looks has missed no more than it had.
    assert_eq!(words(&with(|s| s.rule.end_at = Some(at(130))), 9000), "miss 0..60, fire 120, next none");
}

#[test]
fn a_schedule_that_makes_no_sense_says_why_and_stays_where_it_is() {
    for (schedule, said) in [
        (
            with(|s| s.rule.when = When::Cron("61 * * * *".to_owned())),
            "cron must be a cron expression; its minute \"61\" is not a list of *, numbers from 0 to 59, ranges a-b and steps \
             */n, not \"61 * * * *\"",
        ),
        (with(|s| s.rule.time_zone = "Mars".to_owned()), "time_zone must be the name of an IANA time zone"),
        (with(|s| s.rule.when = When::Every(Duration::ZERO)), "every must be a duration from 1s"),
    ] {
        let plan = plan(&schedule, at(1), LEAD);
        assert!(plan.error.as_deref().is_some_and(|error| error.starts_with(said)), "{plan:?}");
        assert_eq!((plan.next_at, plan.occurrences), (schedule.next_at, vec![]));
    }
}

#[test]
fn a_rule_is_checked_whole() {
    let good = Rule::new(When::Cron("* * * * *".to_owned()));
    assert_eq!(good.check(), Ok(()));
    for (bad, field) in [
        (Rule { when: When::Cron("x".to_owned()), ..good.clone() }, Field::Cron),
        (Rule { when: When::Every(Duration::ZERO), ..good.clone() }, Field::Every),
        (Rule { time_zone: String::new(), ..good.clone() }, Field::TimeZone),
        (Rule { start_at: Some(at(1)), end_at: Some(at(0)), ..good.clone() }, Field::EndAt),
        (Rule { jitter: Duration::from_secs(86_401), ..good.clone() }, Field::Jitter),
        (Rule { catch_up_window: Duration::MAX, ..good.clone() }, Field::CatchUpWindow),
        (Rule { catch_up_max: 0, ..good.clone() }, Field::CatchUpMax),
        (Rule { catch_up_max: 1001, ..good.clone() }, Field::CatchUpMax),
    ] {
        assert_eq!(bad.check().expect_err("it is bad").field, field, "{bad:?}");
    }
    let id = |length: usize| check_key(&TimerKey::new("n", &"i".repeat(length)));
    assert_eq!((id(200), id(201).map_err(|error| error.field)), (Ok(()), Err(Field::Id)));
    let none = id(0).expect_err("it has no name");
    assert_eq!((none.field, none.allowed.as_str()), (Field::Id, "1 to 200 characters, none a control character"));
    for overlap in Overlap::ALL {
        assert_eq!(Overlap::parse(overlap.as_str()), Ok(overlap));
    }
    for catch_up in CatchUp::ALL {
        assert_eq!(CatchUp::parse(catch_up.as_str()), Ok(catch_up));
    }
    assert_eq!(Overlap::parse("SKIP").expect_err("no word of it").field, Field::Overlap);
    assert_eq!(CatchUp::parse("").expect_err("no word of it").field, Field::CatchUp);
}

#[test]
fn jitter_is_the_same_everywhere_and_spreads() {
    let schedule = with(|s| s.rule.jitter = Duration::from_secs(10));
    let waits: Vec<Duration> =
        (0..100).map(|minute| schedule.execute_at(at(minute * 60)).since(at(minute * 60))).collect();
    assert!(waits.iter().all(|wait| *wait <= schedule.rule.jitter));
    let (early, late) = (Duration::from_secs(2), Duration::from_secs(8));
    assert!(waits.iter().any(|wait| *wait < early) && waits.iter().any(|wait| *wait > late), "{waits:?}");
    assert_eq!(minutely().execute_at(at(0)), at(0));
}

proptest! {
    /// However the looks are spread over time, and whatever they find under way, each moment is settled once and in order.
    #[test]
    fn every_moment_is_settled_once(
        looks in proptest::collection::vec((0_i64..90, any::<bool>()), 1..60),
        overlap in proptest::sample::select(&Overlap::ALL[..]),
        catch_up in proptest::sample::select(&CatchUp::ALL[..]),
        seconds in 1_u64..40,
    ) {
        let mut schedule = with(|s| {
            s.rule.when = When::Every(Duration::from_secs(seconds));
            s.rule.overlap = overlap;
            s.rule.catch_up = catch_up;
            s.rule.catch_up_max = 3;
            s.created_at = at(0);
        });
        let mut now = 0;
        let mut settled_to = at(0).before(Duration::from_micros(1));
        for (pause, active) in looks {
            now += pause;
            schedule.active = active;
            let plan = plan(&schedule, at(now), LEAD);
            prop_assert_eq!(&plan, &self::plan(&schedule, at(now), LEAD), "it is a function");
            for occurrence in &plan.occurrences {
                let next = schedule.rule.recurrence(schedule.created_at).unwrap().after(settled_to);
                prop_assert_eq!(next, Some(occurrence.scheduled_for), "none is left out and none comes twice");
                settled_to = occurrence.through.unwrap_or(occurrence.scheduled_for);
                prop_assert!(settled_to <= at(now).after(LEAD));
                prop_assert!(occurrence.outcome == Outcome::Fire || settled_to <= at(now), "left out only when it has come");
            }
            let next = schedule.rule.recurrence(schedule.created_at).unwrap().after(settled_to);
            prop_assert_eq!(Some(plan.next_at), next);
            prop_assert!(plan.next_at > at(now), "nothing that has come is left unsettled");
            schedule.next_at = plan.next_at;
            schedule.buffered_at = plan.buffered_at;
        }
    }
}
