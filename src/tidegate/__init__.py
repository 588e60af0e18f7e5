"""Tidegate: over-the-air firmware updates that stop themselves."""

__version__ = "0.1.0"
