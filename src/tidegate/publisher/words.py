"""Digest words of documents, for ceremonies; the list is `core.words`."""

from tidegate.core.words import COUNT, WORDS, digest_words, same_words

__all__ = ["COUNT", "WORDS", "digest_words", "same_words"]
