"""The panels that dashboards are put together from, in the form that Grafana provisions (its schema's version 41).

A query names its metrics with `$at` for the services that the viewer has chosen; times are `$__rate_interval`, so that
they follow the range looked at. Widths are in Grafana's 24 columns, heights in its rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

COLUMNS = 24
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}

# What `$at` stands for.
CHOSEN = 'job=~"$job", instance=~"$instance"'

GREEN, ORANGE, RED = "green", "orange", "red"
NEUTRAL = "text"


@dataclass(frozen=True)
class Query:
    """`legend` in Grafana's form ({{exit}}). `instant`: the present value alone. `shape`: how the answer is taken."""

    expression: str
    legend: str = ""
    instant: bool = False
    shape: str = "time_series"

    def target(self, number: int) -> Json:
        return {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": self.expression.replace("$at", CHOSEN),
            "legendFormat": self.legend or "__auto",
            "format": self.shape,
            "instant": self.instant,
            "range": not self.instant,
        }


@dataclass(frozen=True)
class Panel:
    """`unit` by Grafana's names. `options`, `custom` (how a field is drawn) and the rest are of its `kind`.

    `repeat`: a variable for each of whose values it is drawn once.
    """

    kind: str
    title: str
    description: str
    queries: Sequence[Query]
    width: int
    height: int = GRAPH_HEIGHT
    unit: str = "short"
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()
    repeat: str = ""

    def json(self, number: int, x: int, y: int) -> Json:
        panel: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [query.target(place) for place, query in enumerate(self.queries)],
            "fieldConfig": {
                "defaults": {"unit": self.unit, **({"custom": self.custom} if self.custom else {}), **self.defaults},
                "overrides": list(self.overrides),
            },
            "options": self.options,
        }
        if self.transformations:
            panel["transformations"] = list(self.transformations)
        if self.repeat:
            # As many beside each other as cascades usually have exits.
            panel |= {"repeat": self.repeat, "repeatDirection": "h", "maxPerRow": 3}
        return panel


@dataclass(frozen=True)
class Row:
    """Panels under one heading, in lines as wide as the page."""

    title: str
    panels: Sequence[Panel]


def stat(
    title: str,
    description: str,
    expression: str,
    unit: str = "short",
    *,
    decimals: int | None = None,
    steps: Mapping[float, str] | None = None,
    names: Mapping[str, str] | None = None,
    legend: str = "",
    width: int = 3,
) -> Panel:
    """One number as it is now. `steps`: from which value on it has which colour; `names`: words for single values;
    with a `legend`, that is shown in its place."""
    defaults: Json = {} if decimals is None else {"decimals": decimals}
    coloured = [{"color": color, "value": value} for value, color in (steps or {}).items()]
    # Grafana's first step has no lower end.
    first = {"color": GREEN if steps else NEUTRAL, "value": None}
    defaults["thresholds"] = {"mode": "absolute", "steps": [first, *coloured]}
    if names:
        defaults["mappings"] = [{"type": "value", "options": {value: {"text": text} for value, text in names.items()}}]
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "colorMode": "value",
        "graphMode": "none" if legend or names else "area",
        "justifyMode": "auto",
        "textMode": "name" if legend else "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    query = Query(expression, legend, instant=bool(legend or names))
    return Panel("stat", title, description, [query], width, STAT_HEIGHT, unit, options, defaults=defaults)


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str = "short",
    *,
    width: int = 12,
    stacked: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> Panel:
    """Values over time; `stacked` ones lie on each other."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 60 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    defaults = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel("timeseries", title, description, queries, width, GRAPH_HEIGHT, unit, options, custom, defaults)


def heat(
    title: str,
    description: str,
    expression: str,
    unit: str,
    *,
    width: int = 12,
    repeat: str = "",
    scheme: str = "Turbo",
) -> Panel:
    """How many, over time and by a histogram's buckets; `expression` keeps their label `le`."""
    options: Json = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": scheme,
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
            "fill": "dark-orange",
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
    }
    query = Query(expression, "{{le}}", shape="heatmap")
    return Panel(
        *("heatmap", title, description, [query], width, GRAPH_HEIGHT, unit, options),
        custom={"scaleDistribution": {"type": "linear"}},
        repeat=repeat,
    )


def frontier(width: int = 12) -> Panel:
    """Where the service stands on its frontier."""
    by_point = "max by (point) (dvt_frontier_{what}{{$at}})"
    now = 'label_replace(max by (instance) (dvt_budget_{what}{{$at}}), "point", "$1", "instance", "(.+)")'
    expressions = [text.format(what=what) for text in (by_point, now) for what in ("gmacs", "top1_ratio")]
    queries = [Query(expression, instant=True, shape="table") for expression in expressions]

    def series(name: str, x: str, y: str) -> Json:
        return {
            "name": {"fixed": name},
            "frame": {"matcher": {"id": "byIndex", "options": 0}},
            "x": {"matcher": {"id": "byName", "options": f"Value #{x}"}},
            "y": {"matcher": {"id": "byName", "options": f"Value #{y}"}},
        }

    def field_of(ref: str, properties: Json) -> Json:
        listed = [{"id": name, "value": value} for name, value in properties.items()]
        return {"matcher": {"id": "byName", "options": f"Value #{ref}"}, "properties": listed}

    cost = {"unit": "short", "decimals": 2, "custom.axisLabel": "GMACs an image"}
    accuracy = {"unit": "percentunit", "custom.axisLabel": "expected top-1"}
    return Panel(
        "xychart",
        "Accuracy against cost",
        "Every point of the bundle's frontier, and the one that each instance has in force (dvt_budget_point): what a "
        "mean image costs there, and the top-1 accuracy measured there.",
        queries,
        width,
        options={
            "mapping": "manual",
            "series": [series("frontier", "A", "B"), series("in force", "C", "D")],
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        custom={"show": "points", "pointSize": {"fixed": 6}, "pointShape": "circle", "fillOpacity": 60},
        overrides=[
            field_of("A", cost),
            field_of("B", accuracy | {"color": {"mode": "fixed", "fixedColor": "blue"}}),
            field_of("C", cost),
            field_of(
                "D", accuracy | {"color": {"mode": "fixed", "fixedColor": "orange"}, "custom.pointSize": {"fixed": 14}}
            ),
        ],
        transformations=[{"id": "joinByField", "options": {"byField": "point", "mode": "outer"}}],
    )


def table(title: str, description: str, columns: Mapping[str, str], by: str, *, width: int = 12) -> Panel:
    """Present values side by side: `columns` are queries by heading, joined where the label `by` agrees."""
    queries = [Query(expression, instant=True, shape="table") for expression in columns.values()]
    renamed = {f"Value #{chr(ord('A') + place)}": heading for place, heading in enumerate(columns)}
    hidden = dict.fromkeys(("Time", *(f"Time {number}" for number in range(1, len(columns) + 1))), True)
    return Panel(
        "table",
        title,
        description,
        queries,
        width,
        options={"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
        transformations=[
            {"id": "joinByField", "options": {"byField": by, "mode": "outer"}},
            {"id": "organize", "options": {"excludeByName": hidden, "renameByName": renamed}},
        ],
    )
