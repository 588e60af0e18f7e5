"""Rehearsals on a scratch copy of an installation: lost keys, other keys, and a server in a thief's hands."""
