"""The nearest known word to a mistyped one, for error messages. Never acted upon: only shown."""

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like `word` (untrusted text), or None when none is alike."""
    import difflib  # late: an agent that was told nothing wrong has no use for it

    names = sorted(set(known))
    by_lower = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word[:128].lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "x"?`, or the whole short list, or nothing: to be put behind a message."""
    names = sorted(set(known))
    near = nearest(word, names)
    if near is not None:
        return f'; did you mean "{near}"?'
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else ""
