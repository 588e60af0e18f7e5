"""What should happen next to a fleet: evidence and policy in, a plan with its reasons out. Pure."""
