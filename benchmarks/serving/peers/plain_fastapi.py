"""A well-made plain FastAPI application: `python -m benchmarks.serving.peers.plain_fastapi --port PORT`.

A synchronous endpoint, which FastAPI runs in its pool of threads, so that pictures are decoded beside a running pass
and the event loop stays free; a lock around the model, whose passes use all cores already; uvicorn on uvloop and
httptools, answers written by orjson. `POST /predict?ensemble_size=k` takes an encoded picture as the body.
"""

import threading
from typing import Annotated

import orjson
import torch
import uvicorn
from fastapi import Body, FastAPI, Query, Response

from benchmarks.serving.peers.prepared import LARGEST, PreparedModel, answer, options


def application(model: PreparedModel) -> FastAPI:
    """The application around a loaded model."""
    app = FastAPI()
    lock = threading.Lock()

    @app.get("/health")
    async def health() -> Response:
        return Response("ok")

    @app.post("/predict")
    def predict(
        picture: Annotated[bytes, Body(media_type="image/png")],
        ensemble_size: Annotated[int, Query(ge=1, le=LARGEST)],
    ) -> Response:
        with torch.inference_mode():
            image = model.decode(picture)
            with lock:
                probabilities = model.classify(image, [ensemble_size])
        return Response(orjson.dumps(answer(model.labels, probabilities[0])), media_type="application/json")

    return app


def main() -> None:
    """Serve until told to stop."""
    chosen = options(__doc__).parse_args()
    app = application(PreparedModel())
    uvicorn.run(app, port=chosen.port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
