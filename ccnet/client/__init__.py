"""`ccnet.Client` and `ccnet.AsyncClient`: the service from Python, over HTTP (docs/http.md).

    evaluations.py     jobs: where one stands, how to wait for it, and the data set that is sent
    images.py          what a user has (paths, bytes, arrays, pictures) -> encoded files
    requests.py        the arguments of a method -> one `Call`
    wire.py            all that touches httpx; a call -> an outcome
    retries.py         an outcome -> how long to wait before trying again, or that it stands
    exchange.py        an outcome -> the answer, or the error that it means
    reading.py         JSON -> the dataclasses of results.py
    sync.py, asynchronous.py   the same in the order in which it happens; they differ in how they wait

Needs the package httpx (`pip install 'ccnet[client]'`), which is imported when a client is made and not before.
"""

from ccnet.client.asynchronous import AsyncClient
from ccnet.client.errors import ConnectionFailed, NotFinished, ServiceError
from ccnet.client.evaluations import Evaluation, EvaluationData, EvaluationPage, EvaluationProgress
from ccnet.client.results import (
    Classification,
    Comparison,
    EquivarianceTable,
    ImageResult,
    Member,
    ModelInfo,
    ModelProbe,
    SequenceDraw,
    ShiftMap,
    ShiftRow,
    Timing,
    TopClass,
)
from ccnet.client.sync import Client

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "Comparison",
    "ConnectionFailed",
    "EquivarianceTable",
    "Evaluation",
    "EvaluationData",
    "EvaluationPage",
    "EvaluationProgress",
    "ImageResult",
    "Member",
    "ModelInfo",
    "ModelProbe",
    "NotFinished",
    "SequenceDraw",
    "ServiceError",
    "ShiftMap",
    "ShiftRow",
    "Timing",
    "TopClass",
]
