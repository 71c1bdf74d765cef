"""A dashboard: rows of panels laid out from left to right, and the variables that its queries are filled in with."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.dashboards.panels import COLUMNS, SOURCE, Json, Row

SCHEMA_VERSION = 41
TAG = "dvt"


@dataclass(frozen=True)
class Variable:
    """What the viewer chooses, from the values of a query; several, or all."""

    name: str
    label: str
    query: str
    hidden: bool = False

    def json(self) -> Json:
        return {
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": self.query, "refId": self.name},
            "definition": self.query,
            "refresh": 2,
            "sort": 3,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"selected": True, "text": "All", "value": "$__all"},
            "options": [],
            "hide": 2 if self.hidden else 0,
        }


JOB = Variable("job", "job", "label_values(dvt_ready, job)")
INSTANCE = Variable("instance", "instance", 'label_values(dvt_ready{job=~"$job"}, instance)')
EXIT = Variable("exit", "exit", 'label_values(dvt_exit_gmacs{job=~"$job", instance=~"$instance"}, exit)', hidden=True)

_DATA_SOURCE: Json = {
    "name": "datasource",
    "label": "data source",
    "type": "datasource",
    "query": "prometheus",
    "current": {"selected": True, "text": "Prometheus", "value": "prometheus"},
    "options": [],
    "hide": 0,
    "multi": False,
    "includeAll": False,
    "refresh": 1,
}


@dataclass(frozen=True)
class Dashboard:
    """`name` is its file's, and the last part of its address."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = (JOB, INSTANCE)

    def json(self) -> Json:
        return {
            "uid": f"dvt-{self.name}",
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": {"from": "now-30m", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": [_budget_changes()]},
            "links": [_other_dashboards()],
            "templating": {"list": [_DATA_SOURCE, *(variable.json() for variable in self.variables)]},
            "panels": _laid_out(self.rows),
        }


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    panels: list[Json] = []
    y = 0
    for row in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
                "panels": [],
            }
        )
        x, y, line_height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            panels.append(panel.json(len(panels) + 1, x, y))
            x, line_height = x + panel.width, max(line_height, panel.height)
        y += line_height
    return panels


def _budget_changes() -> Json:
    """A line where an operator, load or an audit has changed what images leave by."""
    changed = " or ".join(
        f'changes({name}{{job=~"$job", instance=~"$instance"}}[$__interval]) > 0'
        for name in ("dvt_budget_revision", "dvt_budget_operating_point")
    )
    return {
        "name": "budget changed",
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "purple",
        "target": {"refId": "changed", "expr": changed, "interval": "15s"},
        "titleFormat": "budget changed",
        "textFormat": "{{instance}}",
    }


def _other_dashboards() -> Json:
    return {
        "title": "DVT",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
