"""Takes out of a log what looks like a secret, and what is no text. Pure.

A log goes to people who may not know the device's secrets. This is a net, not a proof: software that prints its secrets in other shapes is not caught.
The text is a stranger's, and nobody gets a turn while a pattern is tried: each begins at one place of a run of letters, or looks ahead by a bounded distance,
so that half a megabyte costs a fraction of a second whatever it says.
"""

import re
from typing import Final

HIDDEN: Final = "[hidden]"
#: Names whose values are nobody's business, also as parts of longer names (`db_password`, `clientSecret`).
_WORD: Final = (
    r"(?:[\w.-]{0,40}(?:passw(?:or)?d|passphrase|passcode|secret|token|credentials?)"
    r"|(?:[\w.-]{0,40}[_.-])?(?:psk|api[-_]?key|private[-_]?key|access[-_]?key|session[-_]?id|cookie))"
    r"(?![A-Za-z])(?:[_.-][\w.-]{0,40})?"
)
_RULES: Final = (
    # A key in armour, also one whose end was cut off.
    (
        re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL),
        HIDDEN,
    ),
    (
        re.compile(r"(?i)\b(authorization\s*[:=]\s*)(?:(?:bearer|basic|digest)\s+)?\S+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=_.~-]{8,}"), rf"\1 {HIDDEN}"),
    # name=value, name: value, "name": "value", --name value; also user_password and db.secret.
    (
        re.compile(
            rf"(?i)((?<![\w.-])(?:{_WORD}[\"']?[ \t]*[=:][ \t]*|--{_WORD}[ \t]+))"
            r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;\"']+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)[^\s/@]{1,1000}@"), rf"\1{HIDDEN}@"),
    # JSON web tokens, and what capability addresses are signed with.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,1000}+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
    (
        re.compile(
            r"(?i)([?&](?:sig|signature|x-amz-signature|x-amz-credential|expires?|token|key)=)[^&\s]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), HIDDEN),
)
_NOT_TEXT: Final = re.compile(r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def scrub(text: str) -> str:
    """Return the text without what looks like a secret; control characters become `?`."""
    text = _NOT_TEXT.sub("?", text.replace("\r\n", "\n").replace("\r", "\n"))
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text
