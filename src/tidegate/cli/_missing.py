"""What to say when a library is not there that an extra brings: the base install is what a device carries, and has no command line.

Imports nothing that an extra brings.
"""

import json
import sys
from collections.abc import Sequence
from typing import Final

from tidegate.core.errors import ConfigError
from tidegate.core.reasons import REASONS

#: The smallest extra that brings a library, by the name that is imported.
EXTRA_OF: Final = {
    "click": "publisher",
    "rich": "publisher",
    "numpy": "sim",
    "pkcs11": "pkcs11",
    "psycopg": "postgres",
    "boto3": "s3",
    "botocore": "s3",
    "alembic": "server",
    "argon2": "server",
    "jinja2": "server",
    "joserfc": "server",
    "litestar": "server",
    "prometheus_client": "server",
    "segno": "server",
    "sqlalchemy": "server",
    "urllib3": "server",
    "uvicorn": "server",
}
_EXIT: Final = 1


def missing(error: ImportError) -> ConfigError | None:
    """Return what to say of an import that failed; None = no extra brings it, so it is a bug."""
    name = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(name)
    if extra is None:
        return None
    return ConfigError(
        "config.missing",
        f"this command needs {name}, which is not installed",
        hint=f"pip install 'tidegate[{extra}]'"
        + ("; a server wants 'tidegate[server]'" if extra == "publisher" else ""),
    )


def leave(error: ImportError, arguments: Sequence[str]) -> int:
    """Print to stderr that there is no command line here, as other errors are printed; return the exit code.

    Raises:
        ImportError: it is something else that is missing.
    """
    found = missing(error)
    if found is None:
        raise error
    if "--json" in arguments or "--jsonl" in arguments:
        body = {
            "type": f"urn:tidegate:error:{found.code}",
            "code": found.code,
            "title": REASONS.get(found.code, found.code),
            "detail": found.detail,
            "hint": found.hint,
            "retryable": found.retryable,
            "exit": _EXIT,
        }
        sys.stderr.write(json.dumps(body) + "\n")
    else:
        sys.stderr.write(f"error[{found.code}]: {found.detail}\n  do    {found.hint}\n")
    return _EXIT
