"""Field types of which null, absent and empty are one value, as they are to the API server.

Go's JSON encoder writes a nil slice or map as `null` when the field lacks `omitempty` (EndpointSlice's `endpoints`, a list's
`items`), and people write `host:` with nothing behind it in YAML.  To a consumer all of that is "empty".  So a type checker sees
the plain type, the decoder accepts `null` as well, and the struct's `__post_init__` makes the annotation true with `fill`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

if TYPE_CHECKING:
    Text: TypeAlias = str
    Texts: TypeAlias = dict[str, str]
    Listed: TypeAlias = tuple[T, ...]
    Filled: TypeAlias = T
    Seconds: TypeAlias = int
else:
    Text = str | None  # "" when absent
    Texts = dict[str, str] | None  # {} when absent
    # An offset is required (RFC 3339): a local time would order objects differently on two machines.
    Seconds = Annotated[datetime, msgspec.Meta(tz=True)] | None

    class Listed:
        """`Listed[X]`: an array, () when absent."""

        def __class_getitem__(cls, item):
            return tuple[item, ...] | None

    class Filled:
        """`Filled[X]`: an object, X() when absent."""

        def __class_getitem__(cls, item):
            return item | None


_set = msgspec.structs.force_setattr


def fill(struct: msgspec.Struct, name: str, value: Any) -> None:
    """Give field `name` the value that stands for null.  Only for `__post_init__`: later, a struct is shared and immutable."""
    _set(struct, name, value)


def present(value: T | None, default: T) -> T:
    """`value`, or `default` for null."""
    return default if value is None else value


def unix_seconds(moment: Any) -> int:
    """Whole seconds since 1970, 0 for an absent time; an int is returned as it is, so that a struct can be copied."""
    if isinstance(moment, datetime):
        return int(moment.timestamp())
    return moment if isinstance(moment, int) else 0
