-- Looks at some claims of some age, the oldest first: forgets those of which nothing is under way any more, and shortens those
-- of which at most half is. Returns how many were looked at, and the number of the last one.
-- $1 number of the claim to begin behind bigint, $2 limit bigint, $3 age interval
--
-- A run that has an answer, or is a timer again, is never under way again, and a claim is seen together with all of its runs. So
-- what nothing is seen of is over for good, whoever holds its shards.
-- Who has claimed forgets a claim with its last run (finish.sql, put_back.sql); this finds what he did not see end.
-- On `= any (array[…])` see timers/claim.sql.
with looked_at as materialized (
    select number, claimed_at, namespaces, ids
    from walclock.claims
    where number > $1 and claimed_at < clock_timestamp() - $3::interval
    order by number
    limit $2
    for update skip locked
), listed as materialized (
    select looked_at.number, looked_at.claimed_at, run.namespace, run.id
    from looked_at
    cross join lateral unnest(looked_at.namespaces, looked_at.ids) as run (namespace, id)
), under_way as materialized (
    select listed.number, array_agg(run.namespace) as namespaces, array_agg(run.id) as ids
    from listed
    join walclock.runs as run
        on run.namespace = any (array[listed.namespace]) and run.id = listed.id and run.claimed_at = listed.claimed_at
    where run.answered_at is null
    group by listed.number
), gone as (
    delete from walclock.claims using looked_at
    where claims.number = any (array[looked_at.number])
      and (looked_at.number in (select number from under_way)) is not true
), shortened as (
    update walclock.claims set namespaces = under_way.namespaces, ids = under_way.ids
    from under_way
    where claims.number = any (array[under_way.number]) and cardinality(under_way.ids) <= cardinality(claims.ids) / 2
)
select count(*), max(number) from looked_at
