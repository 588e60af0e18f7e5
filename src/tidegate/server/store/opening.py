"""Which store: PostgreSQL where an address is given, else a file in the data directory."""

from pathlib import Path

from tidegate.core.errors import ConfigError
from tidegate.server.store import Store, sqlite


def open_store(folder: Path, *, url: str = "", durable: bool = True, shared: bool = False) -> Store:
    """Open the store that is meant, made and brought up to date as needed.

    Args:
        folder: the data directory.
        url: of a PostgreSQL server, with its password; secret. Empty = SQLite.
        durable: False gives up safety against a power cut for speed; for simulations only.
        shared: whether other processes may open the folder's database too; any number may always use one server.

    Raises:
        BusyError, ConfigError: `data.*`, `config.missing`.
    """
    if not url:
        return sqlite.open_store(folder, durable=durable, shared=shared)
    try:
        from tidegate.server.store import postgres
    except ImportError as error:
        raise ConfigError(
            "config.missing", "PostgreSQL wants its driver: pip install 'tidegate[postgres]'"
        ) from error
    return postgres.open_store(url, durable=durable)
