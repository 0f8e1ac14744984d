"""LitServe, batching, around `ScaleEnsemble`: `python -m benchmarks.serving.peers.litserve_ensemble --port PORT`.

As LitServe's documentation shows it: the model is loaded in `setup`, pictures come as base64 in JSON and are decoded in
`decode_request`, `predict` takes the batch. `POST /predict` takes {"image_bytes", "ensemble_size"}.
"""

from typing import Any

import torch
from litserve import LitAPI
from torch import Tensor

from benchmarks.serving.peers.litserving import PictureRequest, serve
from benchmarks.serving.peers.prepared import PreparedModel, answer

Wanted = tuple[Tensor, int]  # a prepared image, and members


class EnsembleAPI(LitAPI):
    """One worker; its passes use all cores."""

    def setup(self, device: str) -> None:
        """Load the model, in the worker's process."""
        self._model = PreparedModel()

    def decode_request(self, request: PictureRequest, **_: Any) -> Wanted:
        """One request."""
        return self._model.decode(request.picture), request.ensemble_size

    def batch(self, inputs: list[Wanted]) -> tuple[Tensor, list[int]]:
        """Images of all requests, and what each wants."""
        return torch.cat([image for image, _ in inputs]), [size for _, size in inputs]

    def predict(self, x: tuple[Tensor, list[int]], **_: Any) -> Tensor:
        """Probabilities [N, classes] of a batch."""
        with torch.inference_mode():
            return self._model.classify(*x)

    def encode_response(self, output: Tensor, **_: Any) -> dict[str, object]:
        """One answer."""
        return answer(self._model.labels, output)


def main() -> None:
    """Serve until told to stop."""
    serve(EnsembleAPI, __doc__)


if __name__ == "__main__":
    main()
