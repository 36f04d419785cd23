"""One decision explained: its features out of the log, what each did to the score, and what was made of that."""
