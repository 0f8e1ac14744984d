"""LitServe around the layer of `day_one`: `python -m benchmarks.serving.peers.litserve_day_one --port PORT`.

The same settings, requests and answers as `litserve_ensemble`; the sequences are sampled beforehand, the weights are
generated at every pass.
"""

import random
from typing import Any

import torch
from litserve import LitAPI
from torch import Tensor

from benchmarks.serving.peers.day_one import DayOneNet, mean_logits
from benchmarks.serving.peers.litserving import PictureRequest, serve
from benchmarks.serving.peers.prepared import CHECKPOINT, LARGEST, SEEDS, answer
from ccnet import CCNet, load_checkpoint, sample_scale_sequences
from ccnet.pictures import decode_picture

Wanted = tuple[Tensor, int]  # a prepared image, and members


class DayOneAPI(LitAPI):
    """One worker; its passes use all cores."""

    def setup(self, device: str) -> None:
        """Load the weights, in the worker's process."""
        self._checkpoint = load_checkpoint(CHECKPOINT)
        assert isinstance(self._checkpoint.model, CCNet)
        self._model = DayOneNet(self._checkpoint.model).eval()
        self._members = [
            sample_scale_sequences(LARGEST, seed=seed, **self._checkpoint.sampler) for seed in range(SEEDS)
        ]

    def decode_request(self, request: PictureRequest, **_: Any) -> Wanted:
        """One request."""
        picture = decode_picture(request.picture, max_pixels=2**24, name="the picture")
        return self._checkpoint.preprocess([picture]), request.ensemble_size

    def batch(self, inputs: list[Wanted]) -> tuple[Tensor, list[int]]:
        """Images of all requests, and what each wants."""
        return torch.cat([image for image, _ in inputs]), [size for _, size in inputs]

    def predict(self, x: tuple[Tensor, list[int]], **_: Any) -> Tensor:
        """Probabilities [N, classes] of a batch."""
        images, sizes = x
        with torch.inference_mode():
            return mean_logits(self._model, images, sizes, random.choice(self._members)).softmax(dim=1)

    def encode_response(self, output: Tensor, **_: Any) -> dict[str, object]:
        """One answer."""
        return answer(self._checkpoint.labels, output)


def main() -> None:
    """Serve until told to stop."""
    serve(DayOneAPI, __doc__)


if __name__ == "__main__":
    main()
