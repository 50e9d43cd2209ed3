-- Which cluster this is, and whether it is a standby.
select system_identifier, pg_is_in_recovery() from pg_control_system()
