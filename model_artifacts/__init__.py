"""The shipped models, and the code that reads, verifies and writes models."""
