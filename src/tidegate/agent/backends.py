"""Finds a back end by its name, which is its file's name, without listing the others: the standard library's way to list modules costs a MiB."""

import importlib
from types import ModuleType


def find(package: str, name: str) -> ModuleType | None:
    """Import `package.name` and return it, or None when there is no such file.

    Args:
        package: the back ends' package.
        name: from a configuration or a contract; what is no plain name is no back end.
    """
    if not name.isidentifier() or name.startswith("_"):
        return None
    wanted = f"{package}.{name}"
    try:
        return importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name == wanted:
            return None
        raise
