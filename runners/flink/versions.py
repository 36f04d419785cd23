"""Which Flink is run on this machine, and what its job server is made of: the only place that says so."""

from __future__ import annotations

#: Minor version, as `--flink_version` has it, to release of PyPI's apache-flink-libraries. EMR 7.7 and later: 1.20.
FLINK = {"1.20": "1.20.5", "1.19": "1.19.3"}
DEFAULT_FLINK = "1.20"
#: Maven org.apache.beam, for a job server put together when Beam's own cannot be had: the newest runner that Maven
#: mirrors commonly hold. It is compiled against Flink 1.19, and runs on 1.20: Flink's own classes are the cluster's.
ASSEMBLED_RUNNER = ("beam-runners-flink-1.19", "2.70.0")
ASSEMBLED_JOB_SERVICE = ("beam-runners-java-job-service", "2.65.0")
#: Beam's Java harness, of the runner's release: an older one brings older classes of the runner's core along.
ASSEMBLED_HARNESS = ("beam-sdks-java-harness", "2.70.0")
SLF4J_SIMPLE = "1.7.36"  # Maven org.slf4j:slf4j-simple
MAVEN_SHADE_PLUGIN = "3.6.0"  # what makes one jar of many
