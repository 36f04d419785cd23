"""Decisions into PostgreSQL, RDS and Aurora: `postgresql://user@host/database/schema/table`."""
