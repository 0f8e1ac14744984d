"""`ccnet.Client`: the service from Python, one call at a time and thread."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from ccnet.client import requests
from ccnet.client.exchange import answer_of, says_yes
from ccnet.client.images import Pictures, encode_images
from ccnet.client.requests import Answer, Call, Words
from ccnet.client.results import Classification, Comparison, EquivarianceTable, ModelInfo, SequenceDraw
from ccnet.client.retries import Attempts, Outcome, Patience, until_ready
from ccnet.client.wire import Collected, Endpoint, failure_of


class Client:
    """A client of the service; close it, or use it in a `with` statement. Threads may share one.

    Args:
        url: address of the service, such as "http://127.0.0.1:8000".
        api_key: one of the keys of the service, where it demands one.
        timeout_s: longest time of one call, all its attempts and pauses included, in seconds.
        retries: attempts after the first. A call is tried again when the service says 429 or 503 (after the time that
            its Retry-After asks for) and when the connection fails; never after another answer.

    Raises:
        CcnetError: an argument that cannot be right, or httpx is not installed (`pip install 'ccnet[client]'`).

    Example:
        with Client("http://127.0.0.1:8000") as client:
            print(client.classify("sneaker.png", ensemble_size=4).results[0].label)
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, api_key: str | None = None, timeout_s: float = 30, retries: int = 3
    ) -> None:
        self._endpoint = Endpoint(url, api_key, timeout_s, retries)
        import httpx

        self._http = httpx.Client(**self._endpoint.client_arguments())

    def classify(
        self,
        images: Pictures,
        ensemble_size: int | None = None,
        seed: int | None = None,
        top_k: int | None = None,
        model: str | None = None,
        aggregate: str | None = None,
        include: Words = (),
        timeout_ms: int | None = None,
        min_size: int | None = None,
    ) -> Classification:
        """Classify images with an ensemble of scale sequences.

        Args:
            images: one or several: paths, bytes of PNG, JPEG or WebP files, binary file objects, PIL images, uint8
                arrays [H, W], [H, W, 1] (grey), [H, W, 3] (red, green, blue) or [N, H, W, C]. What stands in memory as
                pixels is sent as PNG, without loss.
            ensemble_size: members; the service's default when absent.
            seed: decides their sequences; the answer names the one that was used.
            top_k: classes listed for each image.
            model: the name of a loaded model.
            aggregate: "mean" or "median" of the members' logits, or "mean_probability".
            include: "members", "logits" or both, to have them in the answer.
            timeout_ms: the service's own deadline, ms; it answers 504 after that. `timeout_s` bounds the call as well.
            min_size: members that are enough when time runs out.

        Raises:
            CcnetError: no image, or one that cannot be right; nothing was sent.
            ServiceError: the service refused; `status`, `title` and `detail` say why.
            ConnectionFailed: no answer came in time.
        """
        encoded = encode_images(images)
        return self._ask(
            requests.classify(encoded, ensemble_size, seed, top_k, model, aggregate, include, timeout_ms, min_size)
        )

    def sequences(
        self, ensemble_size: int | None = None, seed: int | None = None, model: str | None = None
    ) -> SequenceDraw:
        """The scale sequences that a classification with the same arguments uses.

        Raises:
            ServiceError, ConnectionFailed: as `classify`.
        """
        return self._ask(requests.sequences(ensemble_size, seed, model))

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that are loaded, without their configs.

        Raises:
            ServiceError, ConnectionFailed: as `classify`.
        """
        return self._ask(requests.MODELS).models

    def model(self, name: str) -> ModelInfo:
        """One model with all of its config.

        Raises:
            ServiceError, ConnectionFailed: as `classify`; 404 when it is not loaded.
        """
        return self._ask(requests.model(name))

    def equivariance(
        self,
        model: str | None = None,
        input: str | None = None,
        max_shift: int | Words | Iterable[int] | None = None,
        samples: int | None = None,
        seed: int | None = None,
        border: str | None = None,
        ensemble_size: int | None = None,
        timeout_ms: int | None = None,
    ) -> EquivarianceTable:
        """Table 1 of a model: cosine of its last maps before and after shifts of the input.

        Args:
            model: the name of a loaded model.
            input: "noise", or "dataset" for the test images of the model's data set.
            max_shift: one or several, input px; a row each.
            samples: images, each shifted once a row.
            seed: decides shifts, sequences and noise.
            border: what enters at the side from which an image is shifted: "zero", "circular" or "reflect".
            ensemble_size: scale sequences dealt out among the images.
            timeout_ms: as for `classify`.

        Raises:
            ServiceError, ConnectionFailed: as `classify`.
        """
        return self._ask(
            requests.equivariance(model, input, max_shift, samples, seed, border, ensemble_size, timeout_ms)
        )

    def compare(
        self,
        images: Pictures,
        models: Words | None = None,
        max_shift: int | Words | Iterable[int] | None = None,
        seed: int | None = None,
        border: str | None = None,
        ensemble_size: int | None = None,
        timeout_ms: int | None = None,
    ) -> Comparison:
        """Shift images, and see how far each model's last maps move along; models side by side.

        Args:
            images: as for `classify`.
            models: names of loaded models; all when absent.
            max_shift, seed, border, timeout_ms: as for `equivariance`.
            ensemble_size: scale sequences, each used on every image.

        Raises:
            CcnetError, ServiceError, ConnectionFailed: as `classify`.
        """
        encoded = encode_images(images)
        return self._ask(requests.compare(encoded, models, max_shift, seed, border, ensemble_size, timeout_ms))

    def is_live(self) -> bool:
        """Whether the process can still answer; False where nothing answers. Tried once.

        Raises:
            ServiceError: what answers is no such service.
        """
        return self._says_yes(requests.LIVE)

    def is_ready(self) -> bool:
        """Whether the service takes requests: its models are loaded and warm, and it is not stopping. Tried once.

        Raises:
            ServiceError: what answers is no such service.
        """
        return self._says_yes(requests.READY)

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Return as soon as the service takes requests.

        Args:
            timeout_s: longest wait, in seconds.

        Raises:
            ServiceError: it still is not ready after that, or what answers is no such service.
            ConnectionFailed: nothing answered in that time.
        """
        self._ask(requests.READY, until_ready(timeout_s))

    def close(self) -> None:
        """Close the connections that are kept for the next call."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.url!r})"

    def _ask(self, call: Call[Answer], patience: Patience | None = None) -> Answer:
        attempts = Attempts(patience or self._endpoint.patience())
        outcome = self._send(call, attempts)
        while (pause_s := attempts.pause_after(outcome)) is not None:
            time.sleep(pause_s)
            outcome = self._send(call, attempts)
        return answer_of(call, outcome, self._endpoint.url, attempts.made)

    def _says_yes(self, call: Call[Any]) -> bool:
        return says_yes(self._send(call, Attempts(self._endpoint.probing())))

    def _send(self, call: Call[Any], attempts: Attempts) -> Outcome:
        """One attempt."""
        import httpx

        try:
            with self._http.stream(**self._endpoint.request_arguments(call, attempts)) as response:
                collected = Collected(response, attempts)
                for chunk in response.iter_bytes():
                    collected.take(chunk)
            return collected.reply
        except httpx.RequestError as error:
            return failure_of(error, call, attempts.patience.timeout_s)
