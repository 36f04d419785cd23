"""Flink: a cluster on this machine, and jobs on any: `python -m runners.flink up`."""
