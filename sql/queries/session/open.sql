-- What every session of ours begins with. No wait is without a bound, and a database's own defaults must not change what
-- our statements mean.
set default_transaction_isolation = 'read committed';
set statement_timeout = '20s';
-- A client's long transaction may hold rows that we want: then we fail and try again instead of stalling everybody.
set lock_timeout = '1s';
set idle_in_transaction_session_timeout = '20s';
-- Short statements by key: compiling them costs more than running them.
set jit = off;
-- What is acknowledged is durable, also where the database's own default is to take the risk.
select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off';
