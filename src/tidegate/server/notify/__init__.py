"""Telling the world: calls that are owed are rows of the outbox, written with what caused them, and made later, at least once."""
