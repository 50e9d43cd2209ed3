-- Writes a message, and has it on disk however `synchronous_commit` is set: a position that a crash of the server could take
-- back would look as if the server had been put back. Says where it stands in the WAL.
select pg_logical_emit_message(true, 'walclock-begin', '')::text
from set_config('synchronous_commit', 'local', true)
