-- A migration that waits for a table has all claims and clients wait behind it. So it gives up soon, and leaves nothing behind.
set lock_timeout = '3s';
