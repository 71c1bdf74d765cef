"""A Prometheus of one's own, with the rules that are deployed, and what can be asked of it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.service.cascades import wait_until

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "rules"

# `static_configs` instead of DNS, and a second instead of five: all else is as deployed.
_CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ['{rules}/*.yml']
scrape_configs:
  - job_name: dvt
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"""


class Prometheus:
    """Answers of the API of one that listens on `port`."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    @property
    def ready(self) -> bool:
        try:
            with urlopen(f"{self._url}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer. Raises `AssertionError` with Prometheus's own words for a query it cannot run."""
        try:
            with urlopen(f"{self._url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as response:
                return json.load(response)["data"]
        except HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


@contextmanager
def scraping(service_port: int, port: int, folder: Path) -> Iterator[Prometheus]:
    """One that scrapes the service once a second. `found` must have said that there is one."""
    program = found()
    assert program is not None
    configuration = folder / "prometheus.yml"
    configuration.write_text(_CONFIGURATION.format(rules=RULES, port=service_port))
    log = (folder / "prometheus.log").open("w")
    process = subprocess.Popen(
        [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        prometheus = Prometheus(port)
        wait_until(lambda: prometheus.ready, 60)
        yield prometheus
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def found() -> str | None:
    """The program, where it is installed."""
    return shutil.which("prometheus")
