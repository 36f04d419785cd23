"""Which version of each server is used: the only place that says so."""

from __future__ import annotations

KAFKA = "4.1.1"  # Maven org.apache.kafka:kafka_2.13
KAFKA_LOGGING = "2.24.3"  # Maven org.apache.logging.log4j:log4j-slf4j-impl, of the log4j that this Kafka has
DYNAMODB = "2.6.1"  # Maven com.amazonaws:DynamoDBLocal
MAVEN_DEPENDENCY_PLUGIN = "2.8"  # what copies jars out of Maven's repository
KINESALITE = "3.3.3"  # npm kinesalite
KINESIS_LOCAL = "0.6.2"  # npm kinesis-local
VERSITYGW = "1.8.0"  # Go github.com/versity/versitygw/cmd/versitygw
MINISTACK = "1.5.33"  # PyPI ministack
MLFLOW = "3.17.2"  # PyPI mlflow
#: What ministack's services use when it is there.
MINISTACK_EXTRAS = ("boto3==1.43.106", "cryptography==50.0.2", "duckdb==2.0.1", "psycopg2-binary==2.9.13")
#: PyPI aws-sam-cli, for AWS's emulator of the Lambda runtime that it carries.
SAM_CLI = "1.170.0"
#: What Lambda's Python runtime has installed: AWS's runtime client, and boto3.
LAMBDA_RUNTIME = {"awslambdaric": "4.2.2", "boto3": "1.44.8"}
