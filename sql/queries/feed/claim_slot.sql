-- Claims a slot for this session, until the session ends; false where another one has it. The server ends a session that
-- says nothing for so long: its walclock is frozen or out of reach, and another one may have the slot.
-- $1 slot name text, $2 milliseconds text
select set_config('idle_session_timeout', $2::text, false),
       pg_try_advisory_lock(hashtextextended('walclock slot ' || $1::text collate "C", 0))
