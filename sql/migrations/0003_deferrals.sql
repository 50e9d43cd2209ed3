-- A timer may have a retry_at before its first attempt: where its receiver is spared for a while, the dispatcher puts it
-- back with a later moment, and no attempt was made.
alter table walclock.timers drop constraint timers_retry_follows_an_attempt;
