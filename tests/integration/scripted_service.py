"""A service in a process of its own around a scripted backend: `python scripted_service.py FOLDER [certified] [two]`.

Kinds of pictures choose what happens: HELD waits in each stage while there is a file FOLDER/hold, and so does the
warm-up of stage 2; STUCK never ends, BUG breaks the engine, DEEP needs the last exit. Settings come from DVT_*
variables. `certified` gives it profiles with certificates, `two` a second device.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service import log, server
from service.backends.base import Slot
from tests.service.cascades import BLACK, FakeBackend, FakeOutput, certified_profiles, make_service, sure_at

HELD, STUCK, BUG, DEEP = 50, 51, 52, 53


class ScriptedBackend(FakeBackend):
    """Ends, waits and breaks as asked for by what it computes."""

    def __init__(self, hold: Path) -> None:
        super().__init__(sure_at({HELD: 3, DEEP: 3}), buckets=(1, 4))
        self._hold = hold

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        kinds = {self.held[slot].kind for slot in slots}
        is_held = HELD in kinds or (kinds == {BLACK} and stage == 2)
        while is_held and self._hold.exists():
            time.sleep(0.01)
        if STUCK in kinds:
            threading.Event().wait()
        return super().run(stage, slots, lane)

    def release(self, slot: Slot) -> None:
        if self.held[slot].kind == BUG:
            raise KeyError("bug")
        super().release(slot)


def main(folder: Path, *, is_certified: bool, devices: int) -> int:
    log.configure("json", "info")
    names = ("queue_limit", "max_batch", "stall_seconds", "drain_seconds", "refine_seconds", "cache")
    variables: dict[str, Any] = {
        name: os.environ[f"DVT_{name.upper()}"] for name in names if f"DVT_{name.upper()}" in os.environ
    }
    variables["api_keys"] = os.environ.get("DVT_API_KEYS", "")
    profiles = certified_profiles() if is_certified else None
    backends = [ScriptedBackend(folder / "hold") for _ in range(devices)]
    service = make_service(folder, *backends, profiles=profiles, **variables)
    listener = server.bind("127.0.0.1", 0)
    return server.serve(service, listener, "0", lambda: server.announce(service, listener))


if __name__ == "__main__":
    words = sys.argv[2:]
    sys.exit(main(Path(sys.argv[1]), is_certified="certified" in words, devices=2 if "two" in words else 1))
