-- Has the server look now and then, in the middle of a statement, whether the client is still there.
select set_config('client_connection_check_interval', '2s', false)
