"""Fuzzing of everything that reads bytes from strangers: `make fuzz` (coverage-guided), and the same targets with Hypothesis in `make test`."""
