-- Whether the server is a standby at this moment.
select pg_is_in_recovery()
