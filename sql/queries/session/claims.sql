-- What a session for claims has besides. A claim lost in a crash of PostgreSQL means that the timer fires again, which the
-- promise allows; so a claim does not wait for the disk.
set synchronous_commit = off;
