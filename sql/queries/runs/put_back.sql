-- Moves runs back to timers: for another attempt, or anew at another moment, both of which log the attempt that was made, or
-- deferred, as they were before their claims but for the moment. Returns the numbers of the runs that it found under way under
-- an epoch that the caller still holds.
-- $1 owner text, its leases: $2 shards smallint[] and $3 epochs bigint[], the runs: $4 namespaces text[], $5 ids text[],
-- $6 claimed_at timestamptz[], $7 shards smallint[], $8 epochs bigint[], their attempts: $9 sent_at timestamptz[],
-- $10 answered_at timestamptz[], $11 status smallint[], $12 reply text[], $13 error text[],
-- $14 due_at timestamptz[] (when it is to be due again), $15 anew boolean[] (true: as a timer without attempts),
-- $16 deferred boolean[] (true: no attempt was made), $17 longest wait for a row text (null: the session's), and $18 the numbers
-- of claims bigint[] of which nothing is under way any more then, as finish.sql takes them
--
-- A client may have inserted a new timer of the same id meanwhile, which may even have been claimed: then that one is what
-- the client wants, and this run has failed. So has one that is cancelled: a later occurrence of its schedule is in its place,
-- or the newer timer was deleted.
-- On `= any (array[…])` and `answered_at is null` see timers/claim.sql and finish.sql.
with bound as materialized (
    -- The wait holds for this statement: whoever reads it has set it.
    select set_config('lock_timeout', coalesce($17::text, current_setting('lock_timeout')), true) as wait
), held as materialized (
    select shards.shard, shards.epoch
    from bound, unnest($2::smallint[], $3::bigint[]) as lease (shard, epoch)
    join walclock.shards on shards.shard = any (array[lease.shard]) and shards.epoch = lease.epoch
    where shards.owner = $1 and shards.expires_at > clock_timestamp() and bound.wait is not null
    for key share of shards
), wanted as materialized (
    select *
    from unnest(
        $4::text[], $5::text[], $6::timestamptz[], $7::smallint[], $8::bigint[],
        $9::timestamptz[], $10::timestamptz[], $11::smallint[], $12::text[], $13::text[], $14::timestamptz[], $15::boolean[],
        $16::boolean[]
    ) with ordinality
        as run (namespace, id, claimed_at, shard, epoch, sent_at, answered_at, status, reply, error, again_at, anew, deferred, number)
    where ((shard, epoch) in (select shard, epoch from held)) is true
), found as materialized (
    select wanted.number, wanted.again_at, wanted.anew, wanted.deferred, wanted.sent_at as sent, wanted.answered_at as answered,
           wanted.status as answer, wanted.reply as body, wanted.error, run.*,
           not exists (
               select from walclock.runs as newer
               where newer.namespace = any (array[run.namespace]) and newer.id = run.id and newer.shard = run.shard
                 and newer.claimed_at > run.claimed_at
           ) as newest
    from wanted
    join walclock.runs as run
        on run.namespace = any (array[wanted.namespace]) and run.id = wanted.id
        and run.claimed_at = wanted.claimed_at
    where run.epoch = wanted.epoch and run.answered_at is null
    for no key update of run
), put as materialized (
    insert into walclock.timers (
        namespace, id, execute_at, retry_at,
        callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
        retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
        attempts, first_attempt_at, last_error, created_at, updated_at
    )
    select
        namespace, id, case when anew then again_at else execute_at end, case when not anew then again_at end,
        callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
        retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
        case when anew then 0 when deferred then attempts - 1 else attempts end,
        case when not anew and not (deferred and attempts = 1) then first_attempt_at end,
        case when not anew then error end, created_at, case when anew then clock_timestamp() else updated_at end
    from found
    where newest and not cancelled
    on conflict (namespace, id) do nothing
    returning namespace, id
), back as materialized (
    select *, newest and not cancelled and (namespace, id) in (select namespace, id from put) as is_put
    from found
), gone as (
    delete from walclock.runs as run using back
    where back.is_put
      and run.namespace = any (array[back.namespace]) and run.id = back.id
      and run.claimed_at = back.claimed_at
), superseded as (
    update walclock.runs as run
    set state = 'failed', sent_at = case when not back.deferred then back.sent end, answered_at = back.answered,
        status = back.answer, reply = back.body,
        last_error = case
            when back.cancelled then 'cancelled: it was deleted, or a later occurrence of its schedule takes its place'
            else 'superseded by a newer timer of the same id'
        end
    from back
    where not back.is_put
      and run.namespace = any (array[back.namespace]) and run.id = back.id
      and run.claimed_at = back.claimed_at
), logged as (
    insert into walclock.attempts (
        namespace, id, claimed_at, attempt, due_at, sent_at, answered_at, status, reply, error
    )
    select namespace, id, claimed_at, attempts, due_at, sent, answered, answer, body, error
    from back
    where is_put and not deferred
), over as materialized (
    select number from walclock.claims
    where number = any ($18::bigint[]) and (select count(*) from back) = cardinality($4::text[])
    for update skip locked
), forgotten as (
    delete from walclock.claims using over where claims.number = any (array[over.number])
)
select number from back
