"""Expressions that panels share, of the services that the viewer has chosen (`$at`)."""


def rate(metric: str, by: str = "", where: str = "") -> str:
    """A counter's growth a second, summed over all or over each value of the label `by`."""
    return f"{_sum(by)} (rate({metric}{_at(where)}[$__rate_interval]))"


def grown(metric: str, by: str = "", where: str = "", over: str = "$__range") -> str:
    """A counter's growth over a time."""
    return f"{_sum(by)} (increase({metric}{_at(where)}[{over}]))"


def mean(metric: str, by: str = "") -> str:
    """Of what a histogram or a summary has seen."""
    return f"{rate(f'{metric}_sum', by)} / {rate(f'{metric}_count', by)}"


def quantile(share: float, histogram: str) -> str:
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', 'le')})"


def buckets(histogram: str, label: str) -> str:
    """How many fell into each bucket between two points of a heat map; of one value of `label`, the variable's."""
    return grown(f"{histogram}_bucket", "le", f'{label}="${label}"', "$__rate_interval")


def share_of_all(metric: str, by: str) -> str:
    """Of a counter's growth, for each value of the label `by`."""
    return f"{rate(metric, by)} / ignoring({by}) group_left {rate(metric)}"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"


def _at(where: str) -> str:
    return "{$at, " + where + "}" if where else "{$at}"
