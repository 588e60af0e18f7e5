"""What was seen: the ETag of an answer, so that a later call is spared what is unchanged, or changes only what was seen."""


class Tag:
    """Holds the ETag of the last answer that it was given to. Use one for one thing.

    Given to a call that reads (`tag=`), it asks for news only: what is unchanged is not sent again, and the answer is the one that came before. Given to a call
    that changes (`if_match=`), the change is refused with `request.conflict` when somebody else was faster.

    Attributes:
        value: the ETag; empty before the first answer.
        changed: whether the last answer was another one than the one before.
    """

    def __init__(self) -> None:
        self.value = ""
        self.changed = False
        self._body = b""

    def learn(self, value: str, body: bytes) -> bytes:
        """Note an answer, or, with an empty `value`, that it is the one before; return its body."""
        self.changed = bool(value)
        if value:
            self.value, self._body = value, body
        return self._body
