"""Kinesis Data Streams as a source and a sink."""
