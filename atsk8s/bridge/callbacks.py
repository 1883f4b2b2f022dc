"""The composition root: C's one call into Python.  Everything is made here, once, and handed to who needs it."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from _atsk8s import ffi, lib

from atsk8s import __version__
from atsk8s.admin import Admin
from atsk8s.bridge import log
from atsk8s.bridge.core import Core, CoreBell, loaded_state, push_settings, save_state
from atsk8s.bridge.publish import CommitWriter
from atsk8s.bridge.saver import Saver
from atsk8s.config import Settings, parse_settings
from atsk8s.controller import Controller
from atsk8s.errors import AtsK8sError, SettingsError
from atsk8s.model.state import Model
from atsk8s.source.interface import Source

_log = logging.getLogger(__name__)

# A thread that decodes a long list gives the interpreter up this often [s]; the controller's wake-up waits no longer for it.
SWITCH_INTERVAL_S: Final = 0.001
OK: Final = 0  # enum atsk_status of plugin_c/atsk_base.h
E_PYTHON: Final = -11


def _log_fatal(kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
    """cffi calls this when the callback below lets an exception out; it would print it and report success otherwise."""
    text = f"the controller ended with {kind.__name__ if kind else 'an unknown error'}"
    lib.atsk_py_log(3, text.encode(), len(text))


@ffi.def_extern(error=E_PYTHON, onerror=_log_fatal)  # type: ignore[untyped-decorator]
def atsk_controller_main(start_json: Any) -> int:
    """Run the controller until shutdown, on the thread that C made.  ATSK_OK; ATSK_E_PYTHON after an error, which is logged and
    stands as the health reason."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    threading.excepthook = _log_thread_death
    try:
        start = json.loads(ffi.string(start_json))
        settings = parse_settings(start["args"], os.environ)
        log.install(settings.log_level)
        _log.info("starting", extra={"version": __version__, "plugins": ",".join(start["plugins"])})
        _run(settings)
    except AtsK8sError as error:
        # A last good state goes on being ready, but for options that can never work: that start must not pass for a good one.
        _give_up(str(error), ready=loaded_state() is not None and not isinstance(error, SettingsError))
        return E_PYTHON
    except Exception as error:
        _log.exception("the controller failed")
        why = f"the controller failed: {type(error).__name__}; the log has the traceback"
        _give_up(why, ready=loaded_state() is not None)
        return E_PYTHON
    return OK


def _run(settings: Settings) -> None:
    push_settings(settings)
    core = Core()
    controller = Controller(
        settings=settings,
        source=_source(settings),
        model=Model(settings),
        table=CommitWriter(),
        bell=CoreBell(),
        on_first_table=lib.atsk_py_first_table,
        on_health=_health,
        on_unusable=_end_start,
        on_settled=lib.atsk_py_trim,
        is_draining=lambda: bool(lib.atsk_py_draining()),
        loaded=loaded_state(),
    )
    saver = Saver(
        partial(save_state, settings.state_dir, with_certificates=settings.state_certificates),
        controller.live_version,
        directory=settings.state_dir,
    )
    admin = Admin(settings.admin, controller, core, saves=lambda: saver.report) if settings.admin is not None else None
    if admin is not None:
        admin.start()
    if settings.state_dir:
        saver.start()
    try:
        controller.run()
    finally:
        if settings.state_dir:
            saver.stop()
        if admin is not None:
            admin.stop()


def _source(settings: Settings) -> Source:
    # Imported where it is used: the client costs a third of a second, which --manifests need not pay.
    if settings.manifests:
        from atsk8s.source.manifests import ManifestSource

        return ManifestSource(
            Path(settings.manifests), watch_namespaces=settings.watch_namespaces, ignore_namespaces=settings.ignore_namespaces
        )
    from atsk8s.source.kube import credentials
    from atsk8s.source.kube.source import KubeSource

    load: credentials.Load
    if settings.kubeconfig:
        load = partial(credentials.from_kubeconfig, Path(settings.kubeconfig))
    elif settings.server:
        load = partial(credentials.from_token, settings.server, settings.token.reveal(), settings.ca_file)
    else:
        load = credentials.from_service_account
    return KubeSource(load, watch_namespaces=settings.watch_namespaces, ignore_namespaces=settings.ignore_namespaces)


def _health(ready: bool, reason: str) -> None:
    text = reason.encode()
    lib.atsk_py_health(ready, text, len(text))


def _give_up(reason: str, *, ready: bool) -> None:
    """Nothing will come any more."""
    _health(ready, reason)
    _end_start(reason)


def _end_start(reason: str) -> None:
    """Nothing will come for now: a start that still waits for a first table fails with what health says."""
    line = reason.encode()
    lib.atsk_py_log(3, line, len(line))
    lib.atsk_py_first_table()


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    _log.error(
        "a thread died",
        exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
        extra={"thread": args.thread.name if args.thread else ""},
    )
