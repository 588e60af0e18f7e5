"""How a device talks to the control plane: one connection, bounded documents, ranges, pace, events."""
