"""`ccnet.Client`: the service from Python, one call at a time and thread."""

import os
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from ccnet.client import requests
from ccnet.client.evaluations import Evaluation, EvaluationPage, Watch, opened
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

    def evaluate(
        self,
        dataset: str | os.PathLike[str],
        model: str | None = None,
        ensemble_sizes: int | Iterable[int] | None = None,
        draws: int | None = None,
        seed: int | None = None,
        limit: int | None = None,
        views: bool | None = None,
        max_shift: int | Iterable[int] | None = None,
        shift_samples: int | None = None,
        key: str | None = None,
    ) -> Evaluation:
        """Begin to assess a model on a whole data set, as a job behind the live traffic; `wait` waits for its end.

        Args:
            dataset: "fashion-mnist" or "cifar-10", where they are installed beside the service; or the path of a .zip
                with one folder of pictures for each class, or of an .npz with images and labels, which is sent in
                pieces and whose name the data set gets.
            model: the name of a loaded model.
            ensemble_sizes: members, one or several numbers, a row each.
            draws: ensembles of each size that are measured.
            seed: decides all that is drawn.
            limit: only so many images, the first ones.
            views: whether averages over mirrored and moved views are measured beside ensembles.
            max_shift: largest shifts of the table of steadiness, input px, a row each; none, as (), leaves it out.
            shift_samples: images of each of its rows.
            key: 1 to 128 visible ASCII characters: the same question under the same key gives the same job. Without one
                the client draws one for its own attempts.

        Raises:
            CcnetError: the file cannot be read; nothing was sent.
            ServiceError, ConnectionFailed: as `classify`.
        """
        with opened(dataset) as data:
            return self._ask(
                requests.evaluate(data, model, ensemble_sizes, draws, seed, limit, views, max_shift, shift_samples, key)
            )

    def evaluation(self, evaluation: Evaluation | str) -> Evaluation:
        """A job as it stands now, by itself or its id, with its result once it succeeded.

        Raises:
            ServiceError, ConnectionFailed: as `classify`; 404 when there is none.
        """
        return self._ask(requests.evaluation(evaluation))

    def evaluations(
        self, limit: int | None = None, before: str | None = None, status: str | None = None
    ) -> EvaluationPage:
        """Jobs, the newest first, without their results.

        Args:
            limit: most of them in one answer.
            before: `next` of an answer, for the page that follows.
            status: only those that stand there.

        Raises:
            ServiceError, ConnectionFailed: as `classify`.
        """
        return self._ask(requests.evaluations(limit, before, status))

    def wait(
        self,
        evaluation: Evaluation | str,
        timeout_s: float = 3600,
        on_progress: Callable[[Evaluation], None] | None = None,
    ) -> Evaluation:
        """Wait for the end of a job, whatever it is; `status` and `error` of what is returned say.

        The service may be restarted meanwhile: it goes on with its jobs, and this with its questions.

        Args:
            evaluation: the job, or its id.
            timeout_s: longest wait, in seconds; the last question comes then, and may take 5 more.
            on_progress: told about the job whenever it was asked for, after pauses that grow from 0.25 to 10 s.

        Raises:
            NotFinished: it goes on longer than that.
            ServiceError, ConnectionFailed: as `classify`; 404 when it was deleted.
        """
        watch = Watch(timeout_s, self._endpoint.timeout_s, on_progress)
        call = requests.evaluation(evaluation)
        found = self._ask(call, watch.patience)
        while (pause_s := watch.pause_after(found)) is not None:
            time.sleep(pause_s)
            found = self._ask(call, watch.patience)
        return found

    def report(self, evaluation: Evaluation | str, format: str = "markdown") -> str:
        """The report of a job that succeeded.

        Args:
            evaluation: the job, or its id.
            format: "markdown", "html" (one page with plots) or "json".

        Raises:
            ServiceError, ConnectionFailed: as `classify`; 409 unless the job succeeded.
        """
        return self._ask(requests.report(evaluation, format))

    def delete_evaluation(self, evaluation: Evaluation | str) -> Evaluation | None:
        """Cancel a job that is not finished, or remove one that is, with its result.

        Returns:
            The job, cancelled; None for one that was removed.

        Raises:
            ServiceError, ConnectionFailed: as `classify`; 404 when there is none. Where the connection breaks it is not
                tried again, since the first attempt may have cancelled the job, and a second would remove it.
        """
        return self._ask(requests.delete_evaluation(evaluation))

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
