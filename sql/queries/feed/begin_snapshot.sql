-- Begins the transaction of a snapshot. What it sees is settled by its first query, not by this.
start transaction isolation level repeatable read, read only
