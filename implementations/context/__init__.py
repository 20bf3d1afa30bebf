"""Models that read a context: encoded before the question is known, or together with it."""
