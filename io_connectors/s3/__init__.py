"""Objects of S3, and of whatever speaks its protocol, as sources and sinks: `s3://bucket/prefix`."""
