//! The bounds that whoever talks to the server can meet, and those that several parts share, each with its reason. What
//! bounds one part alone, such as the connections of a pool, stands there; settings have theirs in `config`.

use std::time::Duration;

use crate::clock::Timestamp;

/// Longest scope, in bytes: the original change server's bound, and an index entry stays small.
pub const SCOPE_BYTES_MAX: usize = 255;
/// Most scopes of one call. Each is looked for in the index of every segment, and is a place among the waiters; the
/// dispatcher asks for 256, one for each shard.
pub const SCOPES_MAX: usize = 1_000;
/// Scopes that one row may be in; it is in the first of them where it names more. The index has an entry for each, and each
/// who reads past the row looks through them.
pub const ROW_SCOPES_MAX: usize = 10_000;
/// Most changes of one answer: the contract's bound.
pub const CHANGES_LIMIT_MAX: usize = 100_000;
/// Changes of one answer where the reader does not say: the contract's default.
pub const CHANGES_LIMIT_DEFAULT: usize = 100;
/// Bytes of changes at which an answer ends before it has as many as were asked for: what one reader can make the server
/// hold, however large the rows are. Whoever follows on gets the rest.
pub const CHANGES_BYTES_MAX: usize = 16 << 20;
/// Bytes of changes that all answers hold together which are more than small, until they have been sent: a hundred readers
/// that catch up over slow lines must not fill the memory. A sixteenth comes on top for changes that are large by themselves, or
/// one that is larger. With what is kept around the changes it may be twice as much.
pub const CHANGES_ROOM_BYTES: usize = 256 << 20;
/// How long a change that is large by itself waits for its part of that memory before its reader is told to ask again: as long
/// as clients commonly wait. Slow readers may hold it for half an hour.
pub const CHANGES_ROOM_WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of changes of a small answer, which is not counted: it is one chunk, copied once and sent.
pub const CHANGES_SMALL_BYTES: usize = 64 << 10;
/// Answers that are read from the journal's files at once; the next waits. Each may hold some MiB that it does not need in
/// the end, and a disk gains nothing by more.
pub const CHANGES_READS_MAX: usize = 16;
/// Buffers that are kept for reading the journal's files, each a little over 256 KiB: those of one answer of the usual
/// largest kind, 10,000 changes of some hundred bytes.
pub const READ_BUFFERS_MAX: usize = 24;
/// How long a stream of changes stays silent at most: proxies commonly cut a connection on which nothing has come for 30 to
/// 60 seconds, and a reader's position moves on as often.
pub const EVENTS_IDLE_MAX: Duration = Duration::from_secs(15);
/// The same at least, however short the waits of readers must be: a stream must not turn into a flood of heartbeats.
pub const EVENTS_IDLE_MIN: Duration = Duration::from_secs(1);
/// After how long a reader whose stream has ended comes again: each is told another moment of this range, in milliseconds,
/// so that not all of them come at once.
pub const EVENTS_RETRY_MILLIS: std::ops::Range<u32> = 500..2_500;
/// Connections that wait to be accepted: thousands of readers that come back at once, after a restart or a proxy's. Whom the
/// queue does not hold gets no answer, and tries again after 1, 3 and 7 seconds. The system may allow less: Linux goes by
/// `net.core.somaxconn`, 4,096 where nobody has set it.
pub const ACCEPT_QUEUE_MAX: u32 = 4_096;
/// Files and sockets of a process beside those that its settings tell of: what it says to PostgreSQL outside the pool (11
/// connections of a dispatcher, 2 of a changeserver, 8 of snapshots), both ports, connections over the bound and to the
/// management port, the log, and what is open for a moment. Connections and callbacks are fewer where the limit of open files leaves
/// less: a segment of the journal that cannot be made, or PostgreSQL that cannot be reached, is worse than a reader refused.
pub const FILES_OWN: usize = 64 + 2 * *CONNECTIONS_BEYOND_MAX.end() + MANAGEMENT_CONNECTIONS_MAX;
/// Connections to a management port of its own: probes and whoever reads the metrics.
pub const MANAGEMENT_CONNECTIONS_MAX: usize = 256;
/// Connections over their bound that are held for a moment: they are answered 503, or as a probe. One more, and the oldest is
/// cut off. They are a quarter of the bound, within this.
pub const CONNECTIONS_BEYOND_MAX: std::ops::RangeInclusive<usize> = 16..=256;
/// How long a connection may take nothing of what is sent to it: a reader that has stopped reading must not hold it, and
/// the page that it is sent, for ever.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// How many bytes a connection must take in a second, on average, of what waits for it: 64 kbit/s, less than the slowest lines
/// carry. Without it a reader could hold the page that it is sent for days.
pub const WRITE_RATE_MIN: u32 = 8 << 10;
/// So much of the disk is left free by the journal, in bytes: a purge that makes room writes a meta file first, and the
/// index of a full segment has some MiB.
pub const JOURNAL_ROOM_BYTES_MIN: u64 = 8 << 20;
/// Snapshots that are read at once: each holds a connection of PostgreSQL's, and keeps vacuum from what it sees.
pub const SNAPSHOTS_RUNNING_MAX: usize = 8;
/// How long a snapshot waits for a table that another transaction has to itself: while it waits, whoever comes behind it
/// waits too.
pub const SNAPSHOT_LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long it may take until it is settled what a snapshot sees: by then a reader should have an answer.
pub const SNAPSHOT_BEGIN_MAX: Duration = Duration::from_secs(30);
/// How long a reader may take for the next part of a snapshot: who is slower holds back vacuum and every `alter table` for
/// nothing.
pub const SNAPSHOT_STALL_MAX: Duration = Duration::from_secs(60);
/// How long a snapshot may take in all, for the same reason.
pub const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(3600);
/// Longest timer id, in characters: the contract's bound.
pub const TIMER_ID_CHARS_MAX: usize = 255;
/// Longest namespace, in bytes: it is part of every key.
pub const NAMESPACE_BYTES_MAX: usize = 255;
/// Bytes of a secret that signs callbacks: the bounds of Standard Webhooks, which what verifies them may hold a sender to.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Up to how many of a kind what is in a namespace is counted: whoever has more does not need the number, and a command must
/// not read an index of millions for it.
pub const NAMESPACE_COUNT_MAX: u32 = 100_000;
/// Rows of one statement that empties a namespace: so many row locks, for some tens of milliseconds.
pub const DELETED_ROWS_MAX: u32 = 5_000;
/// Largest payload of a timer, in bytes: a timer is a message, not a file.
pub const PAYLOAD_BYTES_MAX: usize = 100 * 1024;
/// How deep the arrays and objects of a payload may nest: what receivers' parsers commonly bear, and far from what would
/// overrun PostgreSQL's.
pub const PAYLOAD_DEPTH_MAX: usize = 128;
/// Longest callback URL, in bytes: the contract's bound.
pub const URL_BYTES_MAX: usize = 2048;
/// Most headers of a callback.
pub const CALLBACK_HEADERS_MAX: usize = 32;
/// All headers of a callback together, in bytes of names and values.
pub const CALLBACK_HEADER_BYTES_MAX: usize = 8 * 1024;
/// How far ahead a timer may lie: 100 years of 365 days and a quarter.
pub const EXECUTE_AT_AHEAD_MAX: Duration = Duration::from_secs(36_525 * 86_400);
/// Shortest and longest time that one callback may take.
pub const CALLBACK_TIMEOUT_SECONDS: std::ops::RangeInclusive<u16> = 1..=300;
/// Most attempts that a policy can name: the database's integer.
pub const RETRY_ATTEMPTS_MAX: u32 = 2_147_483_647;
/// Longest span of a retry policy: 100 years as PostgreSQL compares them, of 360 days each.
pub const RETRY_SPAN_MAX: Duration = Duration::from_secs(100 * 360 * 86_400);
/// Shortest wait of a retry policy: below it a failing receiver would be hammered.
pub const RETRY_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// By how much the waits of a retry policy may grow from one to the next.
pub const RETRY_MULTIPLIER: std::ops::RangeInclusive<f64> = 1.0..=100.0;
/// How much of a wrong value an error shows, in characters.
pub const ERROR_VALUE_CHARS_MAX: usize = 100;
/// Callback URLs whose reading is kept: most timers share few of them, and all together they stay within some MiB.
pub const ROUTES_KEPT_MAX: usize = 1024;
/// Hosts' names that are looked up at once. A lookup blocks a thread, of which the runtime has 512, and has a file or two open; one
/// that a name server does not answer takes half a minute.
pub const LOOKUPS_MAX: usize = 256;
/// Those of them that a namespace may have: one whose name servers do not answer leaves the rest to the others.
pub const LOOKUPS_PER_NAMESPACE_MAX: usize = 64;
/// Names whose addresses are kept for some seconds: with 64 addresses each, they stay within some MiB.
pub const NAMES_KEPT_MAX: usize = 1024;
/// How much of a callback's answer is read; what is behind it is dropped and the connection with it.
pub const REPLY_BYTES_MAX: usize = 64 * 1024;
/// How much of it may be in memory in any case, however many calls are under way: no answer that is asked for has more.
pub const REPLY_SMALL_BYTES_MAX: usize = 4 * 1024;
/// Answers of which more is in memory at once, 64 MiB of them; the next one is read once there is room for it.
pub const REPLIES_LARGE_MAX: usize = 1024;
/// Most bytes of an answer's head: 16 KiB, as is common for heads, since each connection may hold as much.
pub const REPLY_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Longest `Retry-After`: no date is longer.
pub const RETRY_AFTER_BYTES_MAX: usize = 100;
/// How much of a callback's answer is kept with its run: enough to see what went wrong.
pub const REPLY_HEAD_BYTES_MAX: usize = 1024;
/// Longest error text kept with a run or an attempt.
pub const ERROR_BYTES_MAX: usize = 1024;
/// From which take-over on a run that was left without an outcome counts as a failed attempt: a process may be killed now and
/// then, but a callback that ends its dispatcher each time must not end all of them for ever.
pub const ADOPTIONS_MAX: u32 = 3;
/// Rows of one claim, settle or load statement: large enough to spread the round trip and the locks on some 250 leases, small
/// enough to hold locks for milliseconds only.
pub const BATCH_ROWS_MAX: usize = 1000;
/// Claims of one statement that looks whether they are over: at most 100,000 runs to look up, some hundred milliseconds.
pub const CLAIMS_LOOKED_AT_MAX: i64 = 100;
/// Claims whose runs a process counts down: more than are under way at once, as the runs of some end elsewhere; some MiB.
pub const CLAIMS_KNOWN_MAX: usize = 50_000;
/// Payload and headers of one timer together, as the table's constraints bound them, in bytes: what is being claimed counts as
/// so much, since only its row says how large it is.
pub const TIMER_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 16 * 1024;
/// Bytes of payloads and headers of the runs in memory from which on no more timers are claimed: as many as may be under way
/// must not fill the memory where each is large. What is adopted may come on top.
pub const RUNS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Largest body of a request to the server.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// How much more than a body may have is read and dropped before the answer, where it is too large: a client that is cut off
/// while it sends may never see why. Beyond it the connection is closed on it.
pub const REQUEST_DROPPED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long the body of a request may take to arrive: a slow sender must not hold a connection for ever.
pub const REQUEST_BODY_WAIT_MAX: Duration = Duration::from_secs(30);
/// Timers of one batch that is created by one request: some tens of milliseconds of one transaction.
pub const CREATE_BATCH_MAX: usize = 1000;
/// Largest body of a request that creates a batch: 8 KiB for each of the most timers that it may have.
pub const CREATE_BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Batches that are read and created at once; the next waits. Each holds its body, what was read from it and what is sent to
/// PostgreSQL, all of it at most some tens of MiB.
pub const CREATE_BATCHES_MAX: usize = 16;
/// Timers created one by one that share a statement, where they come faster than statements end: beyond it the cost of a
/// statement hardly matters, and the last one waits for the first.
pub const CREATES_TOGETHER_MAX: usize = 100;
/// Bytes of payloads in such a statement: many large ones must not be held twice.
pub const CREATES_TOGETHER_BYTES_MAX: usize = 1024 * 1024;
/// Creates that may wait to share a statement. One more is written by itself, as soon as there is a connection for it.
pub const CREATES_WAITING_MAX: usize = 10_000;
/// Timers of one page of a list, and attempts of one history.
pub const LIST_LIMIT_MAX: u32 = 1000;
/// How long the session that claims a replication slot may say nothing before the server ends it, and the claim with it: ten
/// of the pauses between its questions. Whoever takes the place of a machine that died waits for so long; who was only slow
/// claims the slot again.
pub const CLAIM_IDLE_MAX: Duration = Duration::from_secs(20);
/// How long the replication stream may bring nothing before its walsender is asked whether it is there: an idle one says
/// nothing by itself, and a question and its answer are a hundred bytes.
pub const STREAM_SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long it has for the answer before PostgreSQL is asked what it does: as long as any other question may take. What a busy
/// network holds up has come by then.
pub const STREAM_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Hosts of callbacks whose state is remembered while they have nothing under way, each counted once for every namespace that
/// calls it: some MiB. One more, and another is forgotten: it is then treated as one that was never called.
pub const HOSTS_REMEMBERED_MAX: usize = 10_000;
/// Answers below this size are not compressed: they fit into one packet anyway.
pub const COMPRESSED_BYTES_MIN: u64 = 1024;
/// Answers that are compressed at a time: an encoder holds about 1 MiB, for as long as its reader takes. One more leaves as
/// it is.
pub const COMPRESSIONS_MAX: usize = 64;
/// Longest schedule id, in characters: with `@` and a moment behind it, it is the id of a timer.
pub const SCHEDULE_ID_CHARS_MAX: usize = 200;
/// Longest cron expression, in bytes: a list of every minute has 170.
pub const CRON_BYTES_MAX: usize = 512;
/// How long a cron expression that fits any day at all may fit none, in seconds: 41 years, for a 29th of February on one day
/// of the week comes again after 40 where a year that has none lies between.
pub const CRON_GAP_SECONDS_MAX: i64 = 41 * 366 * 86_400;
/// Shortest and longest fixed interval of a schedule: what is more often than each second is no schedule, and 100 years are
/// as far as timers reach.
pub const SCHEDULE_EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=RETRY_SPAN_MAX;
/// The last moment that a schedule may have, the end of the year 9999: the last that RFC 3339 can write.
pub const SCHEDULE_AT_MAX: Timestamp = Timestamp::from_micros(253_402_300_799_999_999);
/// Longest jitter of a schedule: a day, for what is spread further is another schedule.
pub const SCHEDULE_JITTER_MAX: Duration = Duration::from_secs(86_400);
/// How many missed moments a schedule may make up for at once: each is a row and a timer of one statement.
pub const CATCH_UP_MAX: std::ops::RangeInclusive<u32> = 1..=1000;
/// How long ago a moment of a schedule is that counts as missed, and not merely as late: longer than another dispatcher takes
/// to notice that the one in charge is gone.
pub const SCHEDULE_MISSED_AFTER: Duration = Duration::from_secs(30);
/// How long before a moment its timer is made, where that is certain already: time for the news of it to arrive, and for a
/// batch of many schedules of one minute.
pub const SCHEDULE_LEAD: Duration = Duration::from_secs(2);
/// How long a lease of a shard may last: what a pause of the machine or of the database takes as a rule, and no longer than
/// anybody waits for the timers of a dispatcher that died.
pub const LEASE_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// How long the feed may take to tell of a timer that a sweep found before: a statement over a million rows, read and decoded.
pub const SWEEP_TOLD_MAX: Duration = Duration::from_secs(30);
/// How many timers that a sweep found may wait for the feed to tell of them: a few MiB of ids.
pub const SWEEP_FOUND_MAX: usize = 20_000;
/// Occurrences of one statement: with those of one more schedule, what the dispatcher holds of them in memory.
pub const OCCURRENCES_BATCH_MAX: usize = 2_000;
/// The head of a request, in bytes: its first line and all headers. Longer ones are answered 431. No first line that can be read is longer.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;
/// From how many percent of what `max_slot_wal_keep_size` allows a slot's WAL is warned of: half, time to look, and four fifths, time
/// to act.
pub const SLOT_WAL_PERCENTS: [u8; 2] = [50, 80];
