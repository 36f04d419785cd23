"""Decisions into Redshift: `redshift://cluster/database/schema/table?staging=s3://bucket/prefix&role=ARN`."""
