"""Four kinds of work, each slowed by a true amount."""
