"""A PostgreSQL transaction that must not commit."""

POISON = "ROLLBACK TO SAVEPOINT kit_barrier_failed"
"""There is no such savepoint: PostgreSQL commits nothing after a failed statement."""

IN_ERROR = 3
"""PQTRANS_INERROR, as psycopg and psycopg2 have it: a COMMIT would roll back, and say nothing."""
