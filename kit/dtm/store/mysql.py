"""Written in this change set."""
