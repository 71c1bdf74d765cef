"""Client of a dvt service, which classifies images with as little computation as each image needs.

from dvt_client import Client

with Client("http://127.0.0.1:8000") as client:
    print(client.classify("photo.jpg").result.label)
"""

from dvt_client.answers import (
    Audit,
    AuditedCertificate,
    Budget,
    BudgetRef,
    Certificate,
    Change,
    Classification,
    Compute,
    ExitFeedback,
    ExitInfo,
    Feedback,
    FeedbackTaken,
    Frontier,
    Health,
    History,
    ImageFailure,
    ImageResult,
    Model,
    ModelExit,
    ModelRef,
    Point,
    Prediction,
    Timing,
    WorstCase,
)
from dvt_client.async_client import AsyncClient
from dvt_client.calls import Auto, BudgetForm, ClassifyOptions, RefineOptions, Risk
from dvt_client.client import Client
from dvt_client.errors import (
    AnswerError,
    BudgetNotMetError,
    ClientError,
    DeadlineExceededError,
    ForbiddenError,
    Problem,
    ProblemError,
    RevisionChangedError,
    StateGoneError,
    UnauthorizedError,
    UnavailableError,
    UnknownResultError,
    UnreachableError,
)
from dvt_client.events import DoneEvent, ErrorEvent, Event, ExitEvent, ExitWord, ResultEvent
from dvt_client.photos import Photo
from dvt_client.retry import NEVER, Retry
from dvt_client.version import __version__

__all__ = [
    "NEVER",
    "AnswerError",
    "AsyncClient",
    "Audit",
    "AuditedCertificate",
    "Auto",
    "Budget",
    "BudgetForm",
    "BudgetNotMetError",
    "BudgetRef",
    "Certificate",
    "Change",
    "Classification",
    "ClassifyOptions",
    "Client",
    "ClientError",
    "Compute",
    "DeadlineExceededError",
    "DoneEvent",
    "ErrorEvent",
    "Event",
    "ExitEvent",
    "ExitFeedback",
    "ExitInfo",
    "ExitWord",
    "Feedback",
    "FeedbackTaken",
    "ForbiddenError",
    "Frontier",
    "Health",
    "History",
    "ImageFailure",
    "ImageResult",
    "Model",
    "ModelExit",
    "ModelRef",
    "Photo",
    "Point",
    "Prediction",
    "Problem",
    "ProblemError",
    "RefineOptions",
    "ResultEvent",
    "Retry",
    "RevisionChangedError",
    "Risk",
    "StateGoneError",
    "Timing",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownResultError",
    "UnreachableError",
    "WorstCase",
    "__version__",
]
