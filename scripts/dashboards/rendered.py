"""All dashboards, as the files that Grafana provisions."""

import json
from pathlib import Path

from scripts.dashboards.audit import AUDIT
from scripts.dashboards.engine import ENGINE
from scripts.dashboards.exits import EXITS
from scripts.dashboards.overview import OVERVIEW

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"


def rendered() -> dict[str, str]:
    """Text by the name of its file."""
    return {
        f"{each.name}.json": json.dumps(each.json(), indent=1, ensure_ascii=False) + "\n"
        for each in (OVERVIEW, EXITS, ENGINE, AUDIT)
    }
