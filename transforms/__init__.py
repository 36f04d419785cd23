"""Reusable transforms: what happens to a batch of transactions between source and sink."""
