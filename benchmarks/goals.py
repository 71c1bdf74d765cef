"""Numbers to reach, and what was measured."""

from dataclasses import dataclass
from typing import Final, Literal

AT_LEAST: Final = "at least"
AT_MOST: Final = "at most"


@dataclass(frozen=True)
class Goal:
    """A number to reach: at least `bound`, or at most. `value` is None where it was not measured yet."""

    what: str
    bound: float
    kind: Literal["at least", "at most"]
    value: float | None
    unit: str = ""

    @property
    def reached(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.bound if self.kind == AT_MOST else self.value >= self.bound

    def row(self) -> tuple[str, str, str, str]:
        needed = f"{self.kind} {self.bound:g}{self.unit}"
        measured = "" if self.value is None else f"{self.value:.2f}{self.unit}"
        return (self.what, needed, measured, {None: "not measured", True: "yes", False: "**no**"}[self.reached])
