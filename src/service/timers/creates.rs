//! Creates that come at the same time share a statement, and with it a commit: while some are being written, those that
//! come meanwhile stand in line and are written together next. Who comes alone is written at once.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::domain::limits;
use crate::domain::timer::Definition;
use crate::store::timers::{self as rows, Written};
use crate::store::{self, Store};

/// Statements under way at the same time. With one, whoever comes while it waits for the disk waits twice; with many, they
/// would be small.
const STATEMENTS_MAX: usize = 2;
/// How long a statement of several waits for a row that another transaction holds, before each goes on by itself: nobody
/// is to wait for somebody else's row.
const LOCK_WAIT_TOGETHER: Duration = Duration::from_millis(20);

type Answer = Result<Written<Timestamp>, store::Error>;

/// Writes creates. Cheap to clone.
#[derive(Clone)]
pub(super) struct Creates(Arc<Inner>);

struct Inner {
    store: Store,
    make_namespaces: bool,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// Statements under way.
    under_way: usize,
    waiting: VecDeque<Waiting>,
}

/// A create that waits to be written.
struct Waiting {
    definition: Arc<Definition>,
    answer: oneshot::Sender<Answer>,
}

impl Creates {
    pub(super) fn new(store: Store, make_namespaces: bool) -> Self {
        Self(Arc::new(Inner { store, make_namespaces, line: Mutex::default() }))
    }

    /// How many stand in line.
    pub(super) fn waiting(&self) -> usize {
        self.0.line.lock().waiting.len()
    }

    /// Stores a timer as [`rows::create`] does. It may happen though nobody waits for the answer any more.
    pub(super) async fn store(&self, definition: Arc<Definition>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { definition: definition.clone(), answer };
        let place = self.0.line.lock().take_in(waiting);
        match place {
            Place::First(first) => {
                tokio::spawn(self.0.clone().write_on(vec![first]));
            }
            Place::InLine => {}
            Place::Full => return self.0.write_one(&definition).await,
        }
        answered.await.unwrap_or_else(|gone| Err(store::Error::unavailable("creating a timer")(gone)))
    }
}

/// Where a create has come.
enum Place {
    /// Nobody is before it.
    First(Waiting),
    InLine,
    Full,
}

impl Line {
    fn take_in(&mut self, create: Waiting) -> Place {
        if self.under_way < STATEMENTS_MAX {
            self.under_way += 1;
            return Place::First(create);
        }
        if self.waiting.len() >= limits::CREATES_WAITING_MAX {
            return Place::Full;
        }
        self.waiting.push_back(create);
        Place::InLine
    }

    /// Those who go together next, the first in line first; none where nobody waits, and then a statement is over.
    fn next(&mut self) -> Vec<Waiting> {
        let mut together = Vec::new();
        let mut bytes = 0_usize;
        while together.len() < limits::CREATES_TOGETHER_MAX
            && let Some(next) = self.waiting.front()
        {
            bytes = bytes.saturating_add(next.definition.payload.as_ref().map_or(0, |payload| payload.get().len()));
            if bytes > limits::CREATES_TOGETHER_BYTES_MAX && !together.is_empty() {
                break;
            }
            together.extend(self.waiting.pop_front());
        }
        if together.is_empty() {
            self.under_way -= 1;
        }
        together
    }
}

impl Inner {
    /// Writes these, and then whoever has come meanwhile, until nobody waits.
    async fn write_on(self: Arc<Self>, mut together: Vec<Waiting>) {
        while !together.is_empty() {
            // Were it to panic, those who wait for it hear that it failed; those in line must not wait for ever.
            let _ = AssertUnwindSafe(self.clone().write(together)).catch_unwind().await;
            together = self.line.lock().next();
        }
    }

    async fn write(self: Arc<Self>, together: Vec<Waiting>) {
        if let [_] = together.as_slice() {
            for create in together {
                self.clone().write_alone(create).await;
            }
            return;
        }
        match self.write_many(&together).await {
            Ok(written) => {
                for (create, written) in together.into_iter().zip(written) {
                    match written {
                        // It may wait longer by itself, and has an answer of its own.
                        Ok(Written::Locked) | Err(_) => drop(tokio::spawn(self.clone().write_alone(create))),
                        written @ Ok(_) => drop(create.answer.send(written)),
                    }
                }
            }
            Err(error) => fail(together, error),
        }
    }

    async fn write_many(&self, together: &[Waiting]) -> Result<rows::Many, store::Error> {
        let client = match self.store.client().await {
            Ok(client) => client,
            Err(error) => {
                // Nobody who waits now would fare better, and each group would wait for a connection anew.
                let error = Arc::new(error);
                let waiting = std::mem::take(&mut self.line.lock().waiting);
                fail(waiting, store::Error::unavailable("creating timers")(error.clone()));
                return Err(store::Error::unavailable("creating timers")(error));
            }
        };
        let definitions: Vec<&Definition> = together.iter().map(|create| &*create.definition).collect();
        rows::create_many(&client, &definitions, self.make_namespaces, LOCK_WAIT_TOGETHER, None).await
    }

    async fn write_alone(self: Arc<Self>, create: Waiting) {
        let written = self.write_one(&create.definition).await;
        // Whoever asked may be gone.
        let _ = create.answer.send(written);
    }

    async fn write_one(&self, definition: &Definition) -> Answer {
        rows::create(&self.store.client().await?, definition, self.make_namespaces, None).await
    }
}

/// Tells all of them that this went wrong.
fn fail(creates: impl IntoIterator<Item = Waiting>, error: store::Error) {
    let error = Arc::new(error);
    for create in creates {
        let _ = create.answer.send(Err(store::Error::unavailable("creating timers")(error.clone())));
    }
}
