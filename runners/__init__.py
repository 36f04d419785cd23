"""What each runner needs to be told."""
