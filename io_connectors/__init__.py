"""Sources and sinks, each named by a URL."""
