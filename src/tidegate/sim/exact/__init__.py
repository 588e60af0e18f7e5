"""Scenarios of the batched simulator, played by real agents under the real control plane."""
