-- Cancels a pending timer. Returns its id; no row where none of that name is pending.
-- $1 namespace text, $2 id text
--
-- An older one of that name may be under way, which the pending one was to take the place of: it is not tried again either.
-- Runs are locked before the timer, as who moves a run back to a timer does.
with older as materialized (
    select namespace, id, claimed_at
    from walclock.runs
    where namespace = $1 and id = $2 and answered_at is null and claimed_at < now() + interval '1 day'
    for no key update
), gone as (
    delete from walclock.timers
    where namespace = $1 and id = $2 and (select count(*) from older) >= 0
    returning id
), marked as (
    update walclock.runs as run set cancelled = true
    from older
    where run.namespace = older.namespace and run.id = older.id and run.claimed_at = older.claimed_at
      and not run.cancelled and exists (select from gone)
)
select id from gone
