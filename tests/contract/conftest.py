"""Fixtures that contract suites share."""

from tests.objectstore import bucket, faulty, moto

__all__ = ["bucket", "faulty", "moto"]
