"""Fixtures that several folders of unit tests share."""

from tests.tokens import tokens

__all__ = ["tokens"]
