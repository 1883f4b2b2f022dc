"""Traffic Server's records, through the core (plugin_c/controller/ats_records.h)."""

from __future__ import annotations

import logging
from typing import Final

from _atsk8s import ffi, lib

from atsk8s.cluster_settings.records import Record, RecordType
from atsk8s.errors import Reason, RejectError

_log = logging.getLogger(__name__)

_OK: Final = 0
_NOT_UNDERSTOOD: Final = -4  # ATSK_E_RANGE


class AtsRecords:
    """See cluster_settings.state.RecordTable.  The controller's thread only."""

    def unavailable(self) -> str:
        why = lib.atsk_py_records_unavailable()
        return ffi.string(why).decode() if why != ffi.NULL else ""

    def read(self, name: str) -> Record | None:
        found = ffi.new("struct atsk_py_record *")
        status = lib.atsk_py_record_read(name.encode(), found)
        if status == _NOT_UNDERSTOOD:
            raise RejectError(Reason.UNSUPPORTED, "has a type or a value that cannot be given back: set it in records.config")
        if status != _OK:
            return None
        value = ffi.string(found.value).decode("utf-8", "surrogateescape")
        return Record(
            type=RecordType(found.type),
            is_dynamic=bool(found.is_dynamic),
            is_writable=bool(found.is_writable),
            expression=ffi.string(found.expression).decode("utf-8", "replace"),
            value=None if found.is_null else value,
            source=int(found.source),
        )

    def write(self, name: str, record: Record, value: str | None, source: int) -> bool:
        text = ffi.NULL if value is None else value.encode("utf-8", "surrogateescape")
        status = lib.atsk_py_record_write(name.encode(), int(record.type), text, source)
        shown = "none" if value is None else value
        if status == _OK:
            _log.info("record set", extra={"record": name, "value": shown})
        else:
            _log.error("record not set", extra={"record": name, "value": shown, "status": status})
        return bool(status == _OK)
