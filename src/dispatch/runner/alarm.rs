//! Wakes at an instant, to some microseconds. The runtime's own timers go by whole milliseconds, which would be most of a
//! timer's lateness.

#[cfg(not(target_os = "linux"))]
pub(super) use plain::Alarm;
#[cfg(target_os = "linux")]
pub(super) use precise::Alarm;

#[cfg(target_os = "linux")]
mod precise {
    use std::io::{self, ErrorKind};
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
    use tokio::io::unix::AsyncFd;
    use tracing::warn;

    /// From here on the runtime's own timers are exact enough: whoever waits for so long looks again before.
    const FAR: Duration = Duration::from_millis(100);
    /// By how much a far wait is cut short, so that the rest of it is waited for exactly: the runtime's timers are late by
    /// up to a millisecond, and by more on a machine that is busy.
    const EARLY: Duration = Duration::from_millis(20);

    /// One alarm, for one waiter.
    pub struct Alarm {
        /// None where the system has none to give: then the runtime's timers must do.
        timer: Option<AsyncFd<OwnedFd>>,
        /// For when it is set; none once it has gone off.
        set_for: Option<Instant>,
    }

    impl Alarm {
        /// An alarm that is not set. Must be made within a runtime.
        pub fn new() -> Self {
            let timer = create().inspect_err(|error| warn!(%error, "no exact timer: callbacks leave up to 2 ms late"));
            Self { timer: timer.ok(), set_for: None }
        }

        /// Waits until `at`. May end sooner, in vain: whoever waits looks at the clock. Can be given up at any time.
        pub async fn until(&mut self, at: Instant) {
            let wait = at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return;
            }
            if self.timer.is_none() || wait >= FAR {
                let at = if self.timer.is_none() { at } else { at.checked_sub(EARLY).unwrap_or(at) };
                return tokio::time::sleep_until(at.into()).await;
            }
            // One that goes off too soon is set again then: most waits end before, by an answer.
            if self.set_for.is_none_or(|set_for| set_for > at) {
                if self.set(wait).is_err() {
                    return tokio::time::sleep_until(at.into()).await;
                }
                self.set_for = Some(at);
            }
            let gone_off = self.gone_off().await;
            self.set_for = None;
            if gone_off.is_err() {
                tokio::time::sleep_until(at.into()).await;
            }
        }

        fn set(&self, wait: Duration) -> io::Result<()> {
            let Some(timer) = &self.timer else { return Err(ErrorKind::Unsupported.into()) };
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let it_value = Timespec::try_from(wait).map_err(io::Error::other)?;
            let value = Itimerspec { it_interval: once, it_value };
            rustix::time::timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &value)?;
            Ok(())
        }

        async fn gone_off(&self) -> io::Result<()> {
            let Some(timer) = &self.timer else { return Err(ErrorKind::Unsupported.into()) };
            loop {
                let mut ready = timer.readable().await?;
                // How often it has gone off.
                let mut count = [0; 8];
                match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?)) {
                    Ok(read) => return read.map(drop),
                    Err(_would_block) => {}
                }
            }
        }
    }

    fn create() -> io::Result<AsyncFd<OwnedFd>> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "an owned descriptor keeps what the unsafe one asks for")]
        AsyncFd::new(timer)
    }
}

#[cfg(not(target_os = "linux"))]
mod plain {
    use std::time::Instant;

    /// The runtime's own timers.
    pub struct Alarm;

    impl Alarm {
        /// An alarm that is not set.
        pub fn new() -> Self {
            Self
        }

        /// Waits until `at`.
        pub async fn until(&mut self, at: Instant) {
            tokio::time::sleep_until(at.into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use futures_util::FutureExt;

    use super::Alarm;

    /// Waits as the runner does: again, until it is so late.
    async fn wait(alarm: &mut Alarm, at: Instant) {
        while Instant::now() < at {
            alarm.until(at).await;
        }
    }

    #[tokio::test]
    async fn it_goes_off_again_and_again() {
        let mut alarm = Alarm::new();
        for micros in [0, 50, 700, 3_000, 120_000, 1] {
            let at = Instant::now() + Duration::from_micros(micros);
            wait(&mut alarm, at).await;
        }
    }

    #[tokio::test]
    async fn one_that_is_given_up_neither_loses_nor_invents_the_next() {
        let mut alarm = Alarm::new();
        let (soon, late) = (Duration::from_millis(2), Duration::from_millis(40));
        for (first, second) in [(soon, late), (late, soon)] {
            let start = Instant::now();
            assert!(alarm.until(start + first).now_or_never().is_none());
            wait(&mut alarm, start + second).await;
            assert!(start.elapsed() >= second);
        }
    }

    /// The runtime's timers need a millisecond for each but the first, however fast the machine is; this one needs less
    /// at least once, however slow it is.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn it_is_finer_than_the_runtimes_own_timers() {
        let mut alarm = Alarm::new();
        for _ in 0..2_000 {
            let start = Instant::now();
            for _ in 0..10 {
                wait(&mut alarm, Instant::now() + Duration::from_micros(50)).await;
            }
            if start.elapsed() < Duration::from_millis(8) {
                return;
            }
        }
        panic!("ten waits of 50 µs always took 8 ms or more");
    }
}
