//! The model behind the dispatcher's port, so that the contract suite judges it as it judges PostgreSQL: what the
//! simulation relies on is then what the real store does.

use std::time::Duration;

use parking_lot::Mutex;
use walclock::clock::Timestamp;
use walclock::dispatch::ports::{
    self, ClaimRequest, Claimed, Entry, LeaseGrant, LeaseRequest, LoadRequest, Unavailable, Written,
};
use walclock::domain::callback::Verdict;
use walclock::domain::lease::{Lease, Owner};
use walclock::domain::run::{Run, Settlement};
use walclock::domain::shard::Shard;
use walclock::domain::timer::{Definition, Timer, TimerKey};

use crate::contract::{self, World};
use crate::model::{self, Model};

/// A model that several may ask. Each statement takes a microsecond.
struct Store(Mutex<Model>);

impl Store {
    fn new() -> Self {
        Self(Mutex::new(Model::new(Timestamp::from_micros(1_700_000_000_000_000))))
    }

    /// Does one statement.
    fn run<T>(&self, statement: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.0.lock();
        model.now = Timestamp::from_micros(model.now.micros() + 1);
        statement(&mut model)
    }
}

impl ports::Store for Store {
    async fn now(&self) -> Result<Timestamp, Unavailable> {
        Ok(self.run(|model| model.now))
    }

    async fn lease(&self, request: LeaseRequest) -> Result<LeaseGrant, Unavailable> {
        Ok(self.run(|model| model.lease(&request)))
    }

    async fn load(&self, request: LoadRequest) -> Result<Vec<Entry>, Unavailable> {
        Ok(self.run(|model| model.load(&request)))
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, Unavailable> {
        Ok(self.run(|model| model.claim(&request)))
    }

    async fn adopt(&self, owner: &Owner, leases: &[Lease], limit: usize) -> Result<Vec<Run>, Unavailable> {
        Ok(self.run(|model| model.adopt(owner, leases, limit)))
    }

    async fn settle(&self, owner: &Owner, settlements: &[Settlement]) -> Result<Vec<Written>, Unavailable> {
        Ok(self.run(|model| model.settle(owner, settlements)).into_iter().map(Ok).collect())
    }

    async fn leave(&self, owner: &Owner) -> Result<(), Unavailable> {
        self.run(|model| model.leave(owner));
        Ok(())
    }
}

/// What somebody has locked.
enum Hold {
    Timer(TimerKey),
    Lease(Shard),
}

/// A model, and what happens to it behind the port.
struct Simulated(Store);

impl World for Simulated {
    type Store = Store;
    type Hold = Hold;

    fn store(&self) -> &Store {
        &self.0
    }

    async fn put(&self, definition: &Definition) {
        let put = |model: &mut Model| {
            let timer = Timer::new(definition.clone(), model.now);
            model.put(timer, model.now)
        };
        assert!(self.0.run(put), "no other client holds the row");
    }

    async fn delete(&self, key: &TimerKey) {
        assert!(self.0.run(|model| model.cancel(key)).is_some());
    }

    async fn hold(&self, key: &TimerKey) -> Hold {
        assert!(self.timer(key).await.is_some());
        self.0.run(|model| model.lock(key, Timestamp::MAX));
        Hold::Timer(key.clone())
    }

    async fn write_under(&self, shard: Shard) -> Hold {
        self.0.run(|model| model.write_until(Timestamp::MAX, &[shard]));
        Hold::Lease(shard)
    }

    async fn end(&self, hold: Hold) {
        self.0.run(|model| match hold {
            Hold::Timer(key) => model.lock(&key, Timestamp::MIN),
            Hold::Lease(shard) => model.end_writes(shard),
        });
    }

    async fn expire(&self, shard: Shard) {
        self.0.run(|model| model.expire(shard));
    }

    async fn set_back(&self, span: Duration) {
        self.0.run(|model| model.set_back(span));
    }

    async fn expiries(&self, shard: Shard) -> Option<(Timestamp, Timestamp)> {
        self.0.run(|model| model.expiries(shard))
    }

    async fn set_secrets(&self, namespace: &str, secrets: &[&str]) {
        let secrets = secrets.iter().map(|secret| secret.parse().unwrap()).collect();
        self.0.run(|model| model.set_secrets(namespace, secrets));
    }

    async fn timer(&self, key: &TimerKey) -> Option<Timer> {
        self.0.run(|model| model.pending(key).cloned())
    }

    async fn runs(&self, key: &TimerKey) -> Vec<contract::RunRow> {
        self.0.run(|model| model.runs(key).map(run_row).collect())
    }

    async fn attempts(&self, key: &TimerKey) -> Vec<contract::AttemptRow> {
        self.0.run(|model| model.attempts(key).iter().map(attempt_row).collect())
    }
}

fn run_row(row: &model::RunRow) -> contract::RunRow {
    let answered = row.answered.as_ref();
    contract::RunRow {
        claimed_at: row.run.key.claimed_at,
        epoch: row.run.epoch,
        state: row.state,
        attempts: row.run.timer.attempts,
        sent_at: answered.filter(|_| !row.unsent).map(|attempt| attempt.sent_at),
        answered_at: answered.map(|attempt| attempt.answered_at),
        status: answered.and_then(|attempt| attempt.status),
        reply: answered.map(|attempt| attempt.reply_head.clone()),
        last_error: row.run.timer.last_error.clone(),
    }
}

fn attempt_row(row: &model::AttemptRow) -> contract::AttemptRow {
    let error = match &row.attempt.verdict {
        Verdict::Succeeded | Verdict::Reschedule(_) => None,
        Verdict::Retry { error, .. } | Verdict::Failed { error } => Some(error.clone()),
    };
    contract::AttemptRow {
        attempt: row.number,
        due_at: row.due_at,
        sent_at: row.attempt.sent_at,
        answered_at: row.attempt.answered_at,
        status: row.attempt.status,
        error,
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

contract::for_each_case!(on_the_model);
