-- Ends runs in place, with the figures of their last attempt; returns the numbers of those that were ended, so those that
-- were under way under an epoch that the caller still holds.
-- $1 owner text, its leases: $2 shards smallint[] and $3 epochs bigint[], the runs: $4 namespaces text[], $5 ids text[],
-- $6 claimed_at timestamptz[], $7 shards smallint[], $8 epochs bigint[], their attempts: $9 sent_at timestamptz[] (null: none
-- was made, and the one that the claim has counted is not), $10 answered_at timestamptz[], $11 status smallint[],
-- $12 reply text[], $13 error text[] (null keeps the last one), $14 states text[], and $15 the numbers of claims bigint[]
-- of which nothing is under way any more once all of these runs are ended: they are forgotten then. One that somebody holds, who looks
-- whether it is over, is left to him.
-- On `= any (array[…])` see timers/claim.sql. A run is under way as long as it has no answer.
-- None of the columns written is in an index, so that the update is a HOT one: its page has room for the new row, and no index
-- has to follow.
with held as materialized (
    select shards.shard, shards.epoch
    from unnest($2::smallint[], $3::bigint[]) as lease (shard, epoch)
    join walclock.shards on shards.shard = any (array[lease.shard]) and shards.epoch = lease.epoch
    where shards.owner = $1 and shards.expires_at > clock_timestamp()
    for key share of shards
), wanted as materialized (
    select *
    from unnest(
        $4::text[], $5::text[], $6::timestamptz[], $7::smallint[], $8::bigint[],
        $9::timestamptz[], $10::timestamptz[], $11::smallint[], $12::text[], $13::text[], $14::text[]
    ) with ordinality as run (namespace, id, claimed_at, shard, epoch, sent_at, answered_at, status, reply, error, state, number)
    where ((shard, epoch) in (select shard, epoch from held)) is true
), ended as (
    update walclock.runs as run
    set state = wanted.state, attempts = run.attempts - (wanted.sent_at is null)::int, sent_at = wanted.sent_at,
        answered_at = wanted.answered_at, status = wanted.status, reply = wanted.reply,
        last_error = coalesce(wanted.error, run.last_error)
    from wanted
    where run.namespace = any (array[wanted.namespace]) and run.id = wanted.id
      and run.claimed_at = wanted.claimed_at
      and run.epoch = wanted.epoch and run.answered_at is null
    returning wanted.number
), over as materialized (
    select number from walclock.claims
    where number = any ($15::bigint[]) and (select count(*) from ended) = cardinality($4::text[])
    for update skip locked
), forgotten as (
    delete from walclock.claims using over where claims.number = any (array[over.number])
)
select number from ended
