"""A PostgreSQL transaction that must not commit."""

POISON = "ROLLBACK TO SAVEPOINT kit_barrier_failed"
"""There is no such savepoint: PostgreSQL commits nothing after a failed statement."""
