"""Columns of values in the form that PostgreSQL itself has for arrays.

The driver would write an array of texts as one text, and mark every quote of every JSON document in it: most of what storing an event would cost.
"""

import struct
from typing import Final

from psycopg import DataError
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

from tidegate.server.store.raw import Numbers, Texts

#: Its head: dimensions, whether there are nulls, the kind of its elements, how many, the index of the first. Each element follows its length.
_ARRAY: Final = struct.Struct(">iiIii")
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = _LENGTH.pack(-1)
_TEXT, _INT8 = 25, 20


def register(adapters: AdaptersMap) -> None:
    """Have a connection take `Texts` and `Numbers`."""
    adapters.register_dumper(Texts, _Texts)
    adapters.register_dumper(Numbers, _Numbers)


class _Texts(Dumper):
    format = Format.BINARY
    oid = 1009

    def dump(self, obj: Texts) -> bytes:
        parts = [_ARRAY.pack(1, int(None in obj), _TEXT, len(obj), 1)]
        for one in obj:
            if one is None:
                parts.append(_NULL)
            else:
                data = one.encode()
                parts += _LENGTH.pack(len(data)), data
        return b"".join(parts)


class _Numbers(Dumper):
    format = Format.BINARY
    oid = 1016

    def dump(self, obj: Numbers) -> bytes:
        head = _ARRAY.pack(1, 0, _INT8, len(obj), 1)
        values = [8] * (2 * len(obj))
        values[1::2] = obj
        try:
            return head + struct.pack(f">{'iq' * len(obj)}", *values)
        except struct.error as error:
            raise DataError("a number does not fit its column") from error
