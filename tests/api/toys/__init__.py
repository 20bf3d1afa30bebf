"""Six unlike techniques (and one of reinforcement learning) in miniature: what the API must hold."""
