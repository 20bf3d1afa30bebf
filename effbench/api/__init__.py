"""The names that authors of techniques and tasks use. `effbench` re-exports them."""
