"""Decisions as items of a DynamoDB table: `dynamodb://table`."""
