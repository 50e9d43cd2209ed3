-- Bounds the statements that follow on this connection.
-- $1 milliseconds text, '0' for no bound
select set_config('statement_timeout', $1::text, false)
