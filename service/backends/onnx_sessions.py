"""A bundle's graphs as sessions of ONNX Runtime, one a stage, checked against the configuration. No torch.

A graph file holds no weights: its session gets them from the bundle's one weights file (see `models.graphs`). Graph k
takes `image` and, of what stage k - 1 handed on, `features` and `relations`; it gives `logits` and what it hands on,
`next_features` and `next_relations`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from models.bundle import Bundle
from models.graphs import Provider, Weights, stage_session, stage_weights
from service.backends.base import BackendError
from service.backends.layout import Part, StateLayout, state_layout

IMAGE, LOGITS, NEXT = "image", "logits", "next_"


@dataclass(frozen=True)
class StageSessions:
    """`of_stage[k - 1]` computes stage k, or there is that of one stage alone. Sessions read `weights` where they are:
    they must live as long."""

    layout: StateLayout
    of_stage: tuple[ort.InferenceSession, ...]
    weights: Weights


def open_sessions(
    bundle: Bundle, threads: int, providers: Sequence[Provider], *, spinning: bool = False
) -> StageSessions:
    """Raises `BackendError`: no graphs, or graphs that cannot be loaded or are of another model."""
    if bundle.onnx is None:
        raise BackendError(f"{bundle.path} has no ONNX graphs: run `dvt export {bundle.path}`, or use --backend eager")
    layout, weights = state_layout(bundle.config), bundle.weights()
    sessions = tuple(
        _open(bundle, graph, weights, stage, session_options(threads, spinning=spinning), providers)
        for stage, graph in enumerate(bundle.onnx, start=1)
    )
    return StageSessions(layout, sessions, weights)


def open_one_session(bundle: Bundle, stage: int, threads: int, providers: Sequence[Provider]) -> StageSessions:
    """Of this stage alone, with its own weights. Raises as `open_sessions` does."""
    if bundle.onnx is None:
        raise BackendError(f"{bundle.path} has no ONNX graphs: run `dvt export {bundle.path}`")
    weights = stage_weights(bundle.weights(), stage - 1)
    session = _open(bundle, bundle.onnx[stage - 1], weights, stage, session_options(threads), providers)
    return StageSessions(state_layout(bundle.config), (session,), weights)


def session_options(threads: int, *, spinning: bool = False) -> ort.SessionOptions:
    """For one session. Threads that spin while they wait would take the cores from those that decode images."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.log_severity_level = 3
    return options


def _open(
    bundle: Bundle,
    graph: Path,
    weights: Weights,
    stage: int,
    options: ort.SessionOptions,
    providers: Sequence[Provider],
) -> ort.InferenceSession:
    try:
        session = stage_session(graph.read_bytes(), weights, stage - 1, options, providers)
    except Exception as error:  # ONNX Runtime's own exceptions share no base class of theirs.
        raise BackendError(
            f"{graph} cannot be loaded by ONNX Runtime {ort.__version__} ({error}): run `dvt export` on the bundle"
        ) from error
    _check(bundle, stage, session)
    return session


def _check(bundle: Bundle, stage: int, session: ort.InferenceSession) -> None:
    """Each graph takes and gives just what the configuration says, batch first."""
    layout = state_layout(bundle.config)
    image, logits = Part(IMAGE, layout.image, 0), Part(LOGITS, (bundle.config.classes,), 0)
    handed_on = (Part(NEXT + part.name, part.shape, 0) for part in layout.handed_on(stage))
    for what, values, parts in (
        ("takes", session.get_inputs(), (image, *layout.taken[stage - 1])),
        ("gives", session.get_outputs(), (logits, *handed_on)),
    ):
        found = {value.name: tuple(value.shape[1:]) for value in values}
        expected = {part.name: part.shape for part in parts}
        if found != expected:
            raise BackendError(
                f"{bundle.path}: stage {stage}'s graph {what} {found}, its config.json says {expected}: "
                "run `dvt export` on the bundle"
            )
