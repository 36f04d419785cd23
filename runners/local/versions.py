"""Which version of each server is used: the only place that says so."""

from __future__ import annotations

KAFKA = "4.1.1"  # Maven org.apache.kafka:kafka_2.13
KAFKA_LOGGING = "2.24.3"  # Maven org.apache.logging.log4j:log4j-slf4j-impl, of the log4j that this Kafka has
DYNAMODB = "2.6.1"  # Maven com.amazonaws:DynamoDBLocal
MAVEN_DEPENDENCY_PLUGIN = "2.8"  # what copies jars out of Maven's repository
