"""`dvt serve --check`: whether a start with these settings would succeed, found out by preparing one.

Nothing is touched: the port may be in use by the service that is to be replaced, and the state folder
is copied first, so that a budget which would not outlive the change is told of.
"""

import logging
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from service import main, server
from service.api.keys import ADMIN_KEY_FILE
from service.engine.audit_file import FILE as AUDIT_FILE
from service.engine.budget_file import FILE as BUDGET_FILE
from service.settings import Loaded, SettingsError


def check(loaded: Loaded, log: logging.Logger) -> str:
    """What would be served, as one line; `log` is told what a start would warn about.

    Raises `ValueError` or a `ServiceError` for what would keep the service from starting.
    """
    settings = loaded.settings
    server.bind(settings.host, 0).close()
    opened = main.open_bundle(settings)
    _check_state_folder(settings.state_dir)
    log.setLevel(max(log.level, logging.WARNING))  # That a key was made, say, is true of the copy alone.
    with tempfile.TemporaryDirectory(prefix="dvt-check-") as folder:
        _copy_state(settings.state_dir, Path(folder))
        beside = settings.model_copy(update={"state_dir": Path(folder)})
        service = main.build_service(replace(loaded, settings=beside), opened, log)
    bundle, in_force = opened.bundle, service.budget.in_force
    profiles = "none, budget by thresholds only" if bundle.profiles is None else ", ".join(bundle.profiles.named)
    asked = {name: value for name, value in vars(in_force.request).items() if value is not None}
    return (
        f"{bundle.path}: {bundle.config.architecture}, {bundle.config.exits} exits, {bundle.config.classes} classes, "
        f"backend {opened.backend.name} on {', '.join(opened.devices)}, profiles: {profiles}; budget: {asked}. "
        "Ready to serve."
    )


def _copy_state(state: Path, into: Path) -> None:
    """Raises `SettingsError` where it cannot be read."""
    try:
        for name in (BUDGET_FILE, AUDIT_FILE, ADMIN_KEY_FILE):
            if (state / name).exists():
                shutil.copy2(state / name, into)
    except OSError as error:
        raise SettingsError(f"DVT_STATE_DIR is {state}, where {name} cannot be read: {error.strerror}") from error


def _check_state_folder(folder: Path) -> None:
    """Raises `SettingsError` where it can neither be written nor made."""
    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise SettingsError(f"DVT_STATE_DIR is {folder}: {nearest} cannot be written; name another folder")
