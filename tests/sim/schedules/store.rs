//! The model of schedules behind the dispatcher's port, so that the contract suite judges it as it judges PostgreSQL.

use std::time::Duration;

use parking_lot::Mutex;
use walclock::clock::Timestamp;
use walclock::dispatch::ports::{Due, DueRequest, Planned, ScheduleStore, Unavailable};
use walclock::domain::schedule::Rule;

use super::Planted;
use super::model::{Callback, Model};
use crate::contract::schedules::{self as contract, World};

/// A model that several may ask. Each statement takes a microsecond.
struct Store(Mutex<Model>);

impl Store {
    fn new() -> Self {
        Self(Mutex::new(Model::new(Timestamp::from_micros(1_700_000_000_000_000), Planted::Nothing)))
    }

    /// Does one statement.
    fn run<T>(&self, statement: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.0.lock();
        model.now = Timestamp::from_micros(model.now.micros() + 1);
        statement(&mut model)
    }
}

impl ScheduleStore for Store {
    async fn due(&self, request: DueRequest) -> Result<Due, Unavailable> {
        Ok(self.run(|model| model.due(&request)))
    }

    async fn settle(&self, planned: &[Planned]) -> Result<Vec<Option<u64>>, Unavailable> {
        Ok(self.run(|model| planned.iter().map(|planned| model.settle(planned).map(|_| 0)).collect()))
    }
}

/// A model, and what happens to it behind the port.
struct Simulated(Store);

impl World for Simulated {
    type Store = Store;
    type Hold = String;

    fn store(&self) -> &Store {
        &self.0
    }

    async fn now(&self) -> Timestamp {
        self.0.run(|model| model.now)
    }

    async fn put(&self, id: &str, rule: &Rule, paused: bool) {
        self.0.run(|model| model.put(id, rule.clone(), paused));
    }

    async fn delete(&self, id: &str) {
        self.0.run(|model| model.delete(id));
    }

    async fn trigger(&self, id: &str) -> bool {
        self.0.run(|model| model.trigger(id))
    }

    async fn set_back(&self, id: &str, next_at: Timestamp, buffered_at: Option<Timestamp>) {
        self.0.run(|model| {
            let schedule = &mut model.rows.get_mut(id).unwrap().schedule;
            (schedule.next_at, schedule.buffered_at) = (next_at, buffered_at);
        });
    }

    async fn hold(&self, id: &str) -> String {
        assert!(self.0.run(|model| model.held.insert(id.to_owned())));
        id.to_owned()
    }

    async fn end(&self, hold: String) {
        assert!(self.0.run(|model| model.held.remove(&hold)));
    }

    async fn refuse(&self, id: &str) {
        self.0.run(|model| model.refused.insert(id.to_owned()));
    }

    async fn put_timer(&self, id: &str, at: Timestamp, due_at: Timestamp) {
        let callback = Callback { due_at, attempts: 0, running: false, cancelled: false };
        self.0.run(|model| model.callbacks.insert((id.to_owned(), at), callback));
    }

    async fn claim(&self, id: &str, at: Timestamp) {
        let claimed = self.0.run(|model| model.claim(&(id.to_owned(), at), Timestamp::MAX));
        assert!(claimed.is_some(), "{id} at {at} is pending");
    }

    async fn retry(&self, id: &str, at: Timestamp, again_at: Timestamp) {
        self.0.run(|model| model.answer(&(id.to_owned(), at), Some(again_at.since(model.now))));
    }

    async fn finish(&self, id: &str, at: Timestamp) {
        self.0.run(|model| model.answer(&(id.to_owned(), at), None));
    }

    async fn age(&self, id: &str, at: Timestamp, span: Duration) {
        self.0.run(|model| {
            let made_at = model.now.before(span);
            model.occurrences.get_mut(&(id.to_owned(), at)).unwrap().made_at = made_at;
        });
    }

    async fn purge(&self, retention: Duration) {
        self.0.run(|model| model.purge(retention));
    }

    async fn row(&self, id: &str) -> Option<contract::Row> {
        self.0.run(|model| {
            let row = model.rows.get(id)?;
            Some(contract::Row {
                paused: row.paused,
                next_at: row.schedule.next_at,
                buffered_at: row.schedule.buffered_at,
                changed_at: row.schedule.changed_at,
                revision: row.schedule.revision,
                error: row.error.clone(),
            })
        })
    }

    async fn moments(&self, id: &str) -> Vec<contract::Moment> {
        self.0.run(|model| {
            let moment = |(scheduled_for, occurrence): (Timestamp, &super::model::Occurrence)| contract::Moment {
                scheduled_for,
                state: occurrence.state,
                reason: occurrence.reason.map(str::to_owned),
                through: occurrence.through,
            };
            model.of(id).map(moment).collect()
        })
    }

    async fn callback(&self, id: &str, at: Timestamp) -> Option<Callback> {
        self.0.run(|model| model.callbacks.get(&(id.to_owned(), at)).copied())
    }
}

macro_rules! on_the_model {
    ($case:ident) => {
        #[tokio::test]
        async fn $case() {
            contract::$case(&Simulated(Store::new())).await;
        }
    };
}

contract::for_each_schedule_case!(on_the_model);
