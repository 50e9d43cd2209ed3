-- Writes a message that the slot sends on, so that it moves although nothing is published.
select pg_logical_emit_message(false, 'walclock-heartbeat', '')::text
