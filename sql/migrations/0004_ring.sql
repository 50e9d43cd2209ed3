-- Who the dispatchers are, for people; what becomes of a run whose dispatchers keep dying; and the attempts of a timer.

-- Where a dispatcher runs, so that its process can be found. It is known by its owner alone: a host name and a process id
-- come again after a restart.
alter table walclock.dispatchers
    add column host text,
    add column pid integer;

-- How often the run was taken over by another dispatcher than before, and by whom last: one that takes over what it had
-- itself, because an answer of the database was lost, is alive.
alter table walclock.runs
    add column adoptions integer not null default 0,
    add column adopted_by text;

-- Every attempt of a timer that is kept: those that were followed by another, and the last one.
create view walclock.timer_history as
select namespace, id, attempt, 'retried' as outcome, due_at, claimed_at, sent_at, answered_at,
       answered_at - sent_at as took, status as http_status, error, reply
from walclock.attempts
union all
select namespace, id, attempts, state, due_at, claimed_at, sent_at, answered_at,
       answered_at - sent_at, status, case when state = 'failed' then last_error end, reply
from walclock.runs;
