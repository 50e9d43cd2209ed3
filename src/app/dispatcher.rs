//! The dispatcher of this process: its store, its callbacks, and the feed that it follows.

use std::time::Duration;

use anyhow::Context;

use super::parts::{Part, Parts};
use super::ticks;
use crate::clock::Clock;
use crate::config::Settings;
use crate::delivery;
use crate::dispatch::ports::Feed;
use crate::dispatch::runner::schedules::Materializer;
use crate::dispatch::runner::{Config, Dispatcher, Handle};
use crate::dispatch::{engine, ports};
use crate::domain::lease::Owner;
use crate::service::health::{Check, Condition};

/// How often the dispatcher's state is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the dispatcher, and what tells of it.
pub(super) fn start(
    parts: &mut Parts,
    settings: &Settings,
    clock: &Clock,
    check: Check,
    store: impl ports::Store + ports::ScheduleStore + Clone,
    feed: impl Feed,
) -> anyhow::Result<()> {
    let config = config(settings, owner()?);
    config.validate().map_err(anyhow::Error::msg).context("the dispatcher's settings")?;
    let callbacks = delivery::Config {
        allow: settings.callback_allow.clone(),
        connections_max: settings.callbacks_max,
        ..delivery::Config::default()
    };
    callbacks.validate()?;
    let delivery = delivery::Client::new(callbacks, clock.clone());
    let timeout = config.store_timeout;
    let dispatcher = Dispatcher::new(config, store.clone(), delivery, feed, clock.clone());
    let mut handle = dispatcher.handle();
    let materializer = Materializer::new(store, clock.clone(), &handle, timeout);
    parts.start(Part::Schedules, |stop| async move {
        materializer.run(stop.clone()).await;
        // It ends with its dispatcher, which says why; and is no failure of its own.
        stop.cancelled().await;
        Ok(())
    });
    parts.start(Part::Dispatcher, |stop| async move {
        dispatcher.run(stop).await;
        Ok(())
    });
    parts.start(Part::DispatcherState, |stop| async move {
        // Until then it is starting, as its check says by itself.
        let _ = stop.run_until_cancelled(handle.begun()).await;
        let look = || async {
            check.set(condition(&handle));
            anyhow::Ok(())
        };
        ticks::drive(Part::DispatcherState, LOOK_INTERVAL, stop, look).await;
        Ok(())
    });
    Ok(())
}

/// New at every start: whoever comes back is not the one who held the leases. Two processes of one name would hold the same
/// leases in the same epoch, and copies of a machine agree in clock, memory and thread ids; so only the system can tell them
/// apart.
fn owner() -> anyhow::Result<Owner> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("asking the system for a dispatcher's name")?;
    Ok(Owner(format!("{:032x}", u128::from_be_bytes(bytes))))
}

fn config(settings: &Settings, owner: Owner) -> Config {
    let engine = engine::Config {
        inflight_max: settings.callbacks_max,
        host_inflight_max: settings.callbacks_per_host_max,
        host_rate_max: settings.callbacks_per_host_rate_max,
        host_failures_max: settings.callbacks_per_host_failures,
        seed: fastrand::u64(..),
        ..engine::Config::default()
    };
    Config { lease_ttl: settings.lease_ttl, drain: settings.drain_max, engine, ..Config::new(owner) }
}

/// A dispatcher without shards takes no caller away: others hold them, or it will.
fn condition(handle: &Handle) -> Condition {
    match handle.status().doubt {
        None => Condition::Ready,
        Some(doubt) => Condition::Degraded(format!("no timer is fired for now: {doubt}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_32_digits_that_no_generator_of_this_process_decides() {
        let owners: Vec<Owner> = std::iter::repeat_with(|| {
            fastrand::seed(7);
            owner().expect("the system has random bytes")
        })
        .take(100)
        .collect();
        for Owner(name) in &owners {
            assert_eq!(name.len(), 32, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{name}");
        }
        let different: std::collections::BTreeSet<_> = owners.iter().collect();
        assert_eq!(different.len(), owners.len(), "{owners:?}");
    }
}
