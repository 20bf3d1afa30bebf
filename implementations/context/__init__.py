"""Where an answer comes from: a context, the parameters, or a memory of modules."""
