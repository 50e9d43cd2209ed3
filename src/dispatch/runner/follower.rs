//! Follows the change feed for the shards held, and hands its news to the engine. The feed only makes things fast: when
//! it is away, loads and the sweep carry on alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::work::Answer;
use crate::dispatch::engine::Event;
use crate::dispatch::ports::{Feed, FeedError};
use crate::domain::sequence::Sequence;
use crate::domain::shard::Shard;

/// The first pause after the feed did not answer; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What follows the feed.
pub(super) struct Follower<F> {
    pub(super) feed: Arc<F>,
    /// The shards to follow. Changed before their timers are loaded.
    pub(super) shards: watch::Receiver<Vec<Shard>>,
    pub(super) answers: mpsc::Sender<Answer>,
    /// How long one question waits for news.
    pub(super) wait: Duration,
    /// Set once there is a position to follow from.
    pub(super) positioned: watch::Sender<bool>,
}

/// Why following ended.
enum End {
    /// The feed goes on elsewhere: begin anew.
    Gap,
    /// Nobody listens any more.
    Closed,
}

impl<F: Feed> Follower<F> {
    /// Follows until nobody listens any more.
    pub(super) async fn run(mut self) {
        loop {
            let since = self.position().await;
            // Only now is it certain from where on news will come: what lies before is to be loaded.
            let told = self.answers.send(Answer::Engine(Event::Gap)).await;
            self.positioned.send_replace(true);
            if told.is_err() || matches!(self.follow(since).await, End::Closed) {
                return;
            }
            warn!("the change feed has a gap: the near future is loaded anew");
            metrics::counter!("walclock_feed_reloads_total").increment(1);
        }
    }

    async fn position(&self) -> Sequence {
        let mut pause = Pause::default();
        loop {
            match self.feed.position().await {
                Ok(position) => {
                    self.tells(&pause, true).await;
                    return position;
                }
                Err(error) => {
                    self.tells(&pause, false).await;
                    pause.after(&error).await;
                }
            }
        }
    }

    async fn follow(&mut self, mut since: Sequence) -> End {
        let mut pause = Pause::default();
        loop {
            let shards = self.shards.borrow_and_update().clone();
            if shards.is_empty() {
                if self.shards.changed().await.is_err() {
                    return End::Closed;
                }
                continue;
            }
            let asked_at = Instant::now();
            let news = tokio::select! {
                changed = self.shards.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return End::Closed,
                },
                news = self.feed.follow(&shards, since, self.wait) => news,
            };
            match news {
                Ok(news) => {
                    self.tells(&pause, true).await;
                    pause.over();
                    // News of shards taken over meanwhile are not in it: for them the old position is the right one.
                    if !self.shards.has_changed().unwrap_or(true) {
                        since = news.last;
                    }
                    if news.entries.is_empty() {
                        // A feed that stops makes nobody wait: asked again at once it would keep a core busy, and the
                        // tasks that are to run on it.
                        if asked_at.elapsed() < self.wait / 2 {
                            tokio::time::sleep(PAUSE_FIRST).await;
                        }
                    } else if self.answers.send(Answer::Engine(Event::Noted(news.entries))).await.is_err() {
                        return End::Closed;
                    } else {
                        // Whom this has woken often runs on this very thread. It is to claim first: the next question takes
                        // its seats in the feed at each shard.
                        tokio::task::yield_now().await;
                    }
                }
                Err(FeedError::Gap) => return End::Gap,
                Err(error @ FeedError::Unavailable(_)) => {
                    self.tells(&pause, false).await;
                    pause.after(&error).await;
                }
            }
        }
    }

    /// Says whether the feed answers, where that was not so before.
    async fn tells(&self, pause: &Pause, answers: bool) {
        if pause.0.is_some() == answers {
            // Where nobody listens any more, the next news find that out.
            let _ = self.answers.send(Answer::FeedAnswers(answers)).await;
        }
    }
}

/// The pauses between attempts to reach the feed.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    async fn after(&mut self, error: &FeedError) {
        let pause = match self.0 {
            None => {
                let cause = match error {
                    FeedError::Gap => error.to_string(),
                    FeedError::Unavailable(unavailable) => unavailable.cause(),
                };
                warn!(cause, "{error} failed: the sweep alone finds timers until the change feed answers");
                PAUSE_FIRST
            }
            Some(last) => (last * 2).min(PAUSE_MAX),
        };
        self.0 = Some(pause);
        tokio::time::sleep(pause).await;
    }

    fn over(&mut self) {
        if self.0.take().is_some() {
            info!("the change feed answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::ports::News;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A feed that stops: it has no news, and lets nobody wait for some.
    #[derive(Default)]
    struct Stopping {
        asked: AtomicUsize,
    }

    impl Feed for Stopping {
        async fn position(&self) -> Result<Sequence, FeedError> {
            Ok(Sequence::ZERO)
        }

        async fn follow(&self, _: &[Shard], since: Sequence, _: Duration) -> Result<News, FeedError> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            assert!(asked < 1_000, "it is asked without a pause");
            Ok(News { entries: Vec::new(), last: since })
        }
    }

    #[tokio::test]
    async fn a_feed_that_stops_is_not_asked_without_a_pause() {
        let (answers, _inbox) = mpsc::channel(8);
        let (_holding, shards) = watch::channel(vec![Shard(0)]);
        let (positioned, _) = watch::channel(false);
        let feed = Arc::new(Stopping::default());
        let wait = Duration::from_secs(10);
        let follower = Follower { feed: feed.clone(), shards, answers, wait, positioned };
        let begun_at = Instant::now();
        tokio::time::timeout(PAUSE_FIRST * 4, follower.run()).await.expect_err("it goes on");
        let pauses = begun_at.elapsed().as_millis() / PAUSE_FIRST.as_millis();
        assert!(feed.asked.load(Ordering::Relaxed) as u128 <= pauses + 1, "a pause behind each question");
    }
}
