-- The attempts of a timer, also those after which the receiver asked for another moment: they have no error, and every
-- attempt that is tried again has one.
create or replace view walclock.timer_history as
select namespace, id, attempt, case when error is null then 'rescheduled' else 'retried' end as outcome, due_at, claimed_at,
       sent_at, answered_at, answered_at - sent_at as took, status as http_status, error, reply
from walclock.attempts
union all
select namespace, id, attempts, state, due_at, claimed_at, sent_at, answered_at,
       answered_at - sent_at, status, case when state = 'failed' then last_error end, reply
from walclock.runs;
