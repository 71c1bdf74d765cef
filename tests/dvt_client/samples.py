"""JSON as the service sends it."""

import json
from typing import Any

EXIT = {"number": 1, "of": 3, "grid": 7, "confidence": 0.61, "threshold": 0.83}
COMPUTE = {"gmacs": 0.1, "full_gmacs": 1.0, "static_gmacs": 0.8, "saved": 0.9}
PREDICTIONS = [{"label": "cat", "index": 2, "probability": 0.61}, {"label": "dog", "index": 3, "probability": 0.3}]
MODEL = {"name": "small", "sha256": "a" * 64}
BUDGET_REF = {"revision": 7, "operating_point": 2, "point": 31, "profile": "balanced"}
RESULT: dict[str, Any] = {
    "id": "0900b959c5d8c1b1a1f2f3d4e5c6b7a8",
    "predictions": PREDICTIONS,
    "exit": {**EXIT, "reason": "confident"},
    "compute": COMPUTE,
    "timing_ms": {"decode": 1.5, "queue": 0.1, "stages": [2.5], "total": 5},
    "certificate": None,
}
PROBLEM = {
    "type": "urn:dvt:problem:corrupt_image",
    "title": "Corrupt image",
    "status": 422,
    "detail": "the image is truncated or damaged",
    "code": "corrupt_image",
    "request_id": "9f5be69ba54c2a3a",
}
ANSWER = {"request_id": "9f5be69ba54c2a3a", "model": MODEL, "budget": BUDGET_REF, "results": [RESULT]}
POINT = {
    "number": 3,
    "profile": "fast",
    "thresholds": [0.4, None],
    "top1": 0.8,
    "mean_gmacs": 0.15,
    "exit_shares": [0.5, 0.25, 0.25],
    "certificate": {"risk": "disagreement", "epsilon": 0.01, "delta": 0.05},
    "uncertified": None,
}
BUDGET = {
    "revision": 7,
    "operating_point": 1,
    "request": {"profile": "fast"},
    "resolved": POINT,
    "in_force": POINT,
    "ceiling": None,
}

EXIT_EVENT = {
    "index": 0,
    "exit": EXIT,
    "leaves": False,
    "predictions": PREDICTIONS,
    "compute": COMPUTE,
    "elapsed_ms": 12.3,
}
DONE = {"request_id": "9f5be69ba54c2a3a", "model": MODEL, "budget": BUDGET_REF}


def problem(status: int, code: str, **more: object) -> dict[str, object]:
    return {**PROBLEM, "status": status, "code": code, **more}


def event(name: str, document: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()


WHOLE_STREAM = (
    event("exit", EXIT_EVENT)
    + b": heartbeat\n\n"
    + event("exit", {**EXIT_EVENT, "leaves": True, "exit": {**EXIT, "number": 2, "threshold": None}})
    + event("result", {"index": 0, "result": RESULT})
    + event("error", {"index": 1, "error": PROBLEM})
    + event("done", DONE)
)
