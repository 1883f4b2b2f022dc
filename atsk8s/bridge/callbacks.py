"""The composition root: C's one call into Python.  Everything is made here, once, and handed to who needs it."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from _atsk8s import ffi, lib

from atsk8s import __version__
from atsk8s.admin import Admin
from atsk8s.bridge import log
from atsk8s.bridge.core import Core, CoreBell, loaded_state, push_settings, save_state, set_health_path
from atsk8s.bridge.publish import CommitWriter
from atsk8s.bridge.records import AtsRecords
from atsk8s.bridge.saver import Saver
from atsk8s.cluster_settings.state import ClusterSettings
from atsk8s.config import parse_settings
from atsk8s.controller import Controller
from atsk8s.errors import AtsK8sError, SettingsError
from atsk8s.model.state import Model
from atsk8s.settings import Settings
from atsk8s.source.interface import Source
from atsk8s.source.kinds import NAMESPACE
from atsk8s.threads import Backoff, Keeper

if TYPE_CHECKING:
    from atsk8s.source.kube.credentials import Load
    from atsk8s.source.kube.events import EventWriter

_log = logging.getLogger(__name__)

# A thread that decodes a long list gives the interpreter up this often [s]; the controller's wake-up waits no longer for it.
SWITCH_INTERVAL_S: Final = 0.001
OK: Final = 0  # enum atsk_status of plugin_c/base/atsk_base.h
E_PYTHON: Final = -11
E_ENDED: Final = -14

_running: _Process | None = None  # outlives the end of the controller's thread, or rather of what ran on it


def _log_fatal(kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
    """cffi calls this when the callback below lets an exception out; it would print it and report success otherwise."""
    text = f"the controller ended with {kind.__name__ if kind else 'an unknown error'}, and is started again"
    lib.atsk_py_log(3, text.encode(), len(text))


@ffi.def_extern(error=E_ENDED, onerror=_log_fatal)  # type: ignore[untyped-decorator]
def atsk_controller_main(start_json: Any) -> int:
    """Run the controller until shutdown, on the thread that C made.

    ATSK_OK; ATSK_E_PYTHON after an error at the start, which is logged and stands as the health reason; ATSK_E_ENDED: it ran, and
    something that no handler foresees has ended it.  The published table stays, and C calls again: it goes on then.
    """
    global _running
    if _running is not None:
        _running.resume()
        return OK
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    threading.excepthook = _log_thread_death
    try:
        start = json.loads(ffi.string(start_json))
        settings = parse_settings(start["args"], os.environ)
        log.install(settings)
        _log.info("starting", extra={"version": __version__, "plugins": ",".join(start["plugins"])})
        _running = _Process(settings)
    except AtsK8sError as error:
        # A last good state goes on being ready, but for options that can never work: that start must not pass for a good one.
        _give_up(str(error), ready=loaded_state() is not None and not isinstance(error, SettingsError))
        return E_PYTHON
    except Exception as error:
        _log.exception("the controller failed")
        why = f"the controller failed: {type(error).__name__}; the log has the traceback"
        _give_up(why, ready=loaded_state() is not None)
        return E_PYTHON
    _running.run()
    return OK


class _Process:
    """Everything that runs beside the controller, and the controller."""

    def __init__(self, settings: Settings) -> None:
        """Make all of it, and start what does not wait for a table.

        Raises:
            AtsK8sError: the options cannot work.
        """
        settings = _located(settings)
        push_settings(settings)
        core = Core()
        self._keeper = Keeper()
        self._backoff = Backoff(time.monotonic)
        self._bell = CoreBell()
        source = _source(settings, self._keeper)
        self._events = _events(settings, source)
        self._controller = Controller(
            settings=settings,
            source=source,
            model=Model(settings),
            table=CommitWriter(labels_services=settings.access_log_fields),
            bell=self._bell,
            on_first_table=lib.atsk_py_first_table,
            on_health=_health,
            on_unusable=_end_start,
            on_settled=lib.atsk_py_trim,
            events=self._events,
            cluster_settings=ClusterSettings(settings, AtsRecords(), set_health_path),
            is_draining=lambda: bool(lib.atsk_py_draining()),
            keeper=self._keeper,
            loaded=loaded_state(),
        )
        saver = Saver(
            partial(save_state, settings.state_dir, with_certificates=settings.state_certificates),
            self._controller.live_version,
            directory=settings.state_dir,
            keeper=self._keeper,
        )
        self._saver = saver if settings.state_dir else None
        self._admin: Admin | None = None
        if settings.admin is not None:
            self._admin = Admin(settings.admin, self._controller, core, saves=lambda: saver.report, keeper=self._keeper)
            self._admin.start()
        if self._saver is not None:
            self._saver.start()
        if self._events is not None:
            self._events.start(self._keeper)

    def run(self) -> None:
        """Until shutdown."""
        self._controller.run()
        if self._events is not None:
            self._events.stop()
        if self._saver is not None:
            self._saver.stop()
        if self._admin is not None:
            self._admin.stop()

    def resume(self) -> None:
        """Run on, after something has ended `run`; at once the first time, later after a while."""
        self._keeper.restarts.add("controller")
        due_at = time.monotonic() + self._backoff.ended()
        while (left_s := due_at - time.monotonic()) > 0 and not self._bell.wait(left_s):
            pass
        self._backoff.started()
        self.run()


def _source(settings: Settings, keeper: Keeper) -> Source:
    # Imported where it is used: the client costs a third of a second, which --manifests need not pay.
    if settings.manifests:
        from atsk8s.source.manifests import ManifestSource

        return ManifestSource(
            Path(settings.manifests),
            watch_namespaces=settings.watch_namespaces,
            ignore_namespaces=settings.ignore_namespaces,
            own_namespaces=settings.own_namespaces,
            keeper=keeper,
        )
    from atsk8s.source.kube.source import KubeSource

    return KubeSource(
        _credentials(settings),
        watch_namespaces=settings.watch_namespaces,
        ignore_namespaces=settings.ignore_namespaces,
        own_namespaces=settings.own_namespaces,
        keeper=keeper,
        also_mandatory=(NAMESPACE,) if settings.namespace_selector is not None else (),
    )


def _located(settings: Settings) -> Settings:
    """With the pod's own namespace, which its service account tells if no option does."""
    if settings.pod_namespace or settings.manifests:
        return settings
    from atsk8s.source.kube.credentials import SERVICE_ACCOUNT_DIR

    try:
        namespace = (SERVICE_ACCOUNT_DIR / "namespace").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # not in a pod
        return settings
    return replace(settings, pod_namespace=namespace)


def _credentials(settings: Settings) -> Load:
    from atsk8s.source.kube import credentials

    if settings.kubeconfig:
        return partial(credentials.from_kubeconfig, Path(settings.kubeconfig))
    if settings.server:
        return partial(credentials.from_token, settings.server, settings.token.reveal(), settings.ca_file)
    return credentials.from_service_account


def _events(settings: Settings, source: Source) -> EventWriter | None:
    """Who writes Kubernetes Events; a directory has nobody to write them to."""
    if settings.manifests or not settings.events:
        return None
    from atsk8s.source.kube.events import EventWriter
    from atsk8s.source.kube.writing import WriteTransport

    return EventWriter(source, partial(WriteTransport, _credentials(settings)))


def _health(ready: bool, reason: str) -> None:
    text = reason.encode()
    lib.atsk_py_health(ready, text, len(text))


def _give_up(reason: str, *, ready: bool) -> None:
    """Nothing will come any more."""
    _health(ready, reason)
    _end_start(reason)


def _end_start(reason: str) -> None:
    """Nothing will come for now: a start that still waits for a first table fails with what health says."""
    log.alert(reason)
    lib.atsk_py_first_table()


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    _log.error(
        "a thread died",
        exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
        extra={"which": args.thread.name if args.thread else ""},
    )
