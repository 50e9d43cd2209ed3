-- The latest attempts of a timer, newest first.
-- $1 namespace text, $2 id text, $3 limit bigint
select attempt, outcome, due_at, claimed_at, sent_at, answered_at, http_status, error, reply
from walclock.timer_history
where namespace = $1 and id = $2
order by claimed_at desc
limit $3
