"""`ccnet.AsyncClient`: `ccnet.Client` for asyncio. Images are read and encoded in a thread, beside the loop."""

import asyncio
import os
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


class AsyncClient:
    """As `ccnet.Client`, with the same arguments, answers and errors, for `async with` and `await`.

    Example:
        async with AsyncClient("http://127.0.0.1:8000") as client:
            answers = await asyncio.gather(*(client.classify(path) for path in paths))
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, api_key: str | None = None, timeout_s: float = 30, retries: int = 3
    ) -> None:
        self._endpoint = Endpoint(url, api_key, timeout_s, retries)
        import httpx

        self._http = httpx.AsyncClient(**self._endpoint.client_arguments())

    async def classify(
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
        """As `Client.classify`."""
        encoded = await asyncio.to_thread(encode_images, images)
        return await self._ask(
            requests.classify(encoded, ensemble_size, seed, top_k, model, aggregate, include, timeout_ms, min_size)
        )

    async def sequences(
        self, ensemble_size: int | None = None, seed: int | None = None, model: str | None = None
    ) -> SequenceDraw:
        """As `Client.sequences`."""
        return await self._ask(requests.sequences(ensemble_size, seed, model))

    async def models(self) -> tuple[ModelInfo, ...]:
        """As `Client.models`."""
        return (await self._ask(requests.MODELS)).models

    async def model(self, name: str) -> ModelInfo:
        """As `Client.model`."""
        return await self._ask(requests.model(name))

    async def equivariance(
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
        """As `Client.equivariance`."""
        return await self._ask(
            requests.equivariance(model, input, max_shift, samples, seed, border, ensemble_size, timeout_ms)
        )

    async def compare(
        self,
        images: Pictures,
        models: Words | None = None,
        max_shift: int | Words | Iterable[int] | None = None,
        seed: int | None = None,
        border: str | None = None,
        ensemble_size: int | None = None,
        timeout_ms: int | None = None,
    ) -> Comparison:
        """As `Client.compare`."""
        encoded = await asyncio.to_thread(encode_images, images)
        return await self._ask(requests.compare(encoded, models, max_shift, seed, border, ensemble_size, timeout_ms))

    async def evaluate(
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
        """As `Client.evaluate`."""
        with opened(dataset) as data:
            return await self._ask(
                requests.evaluate(data, model, ensemble_sizes, draws, seed, limit, views, max_shift, shift_samples, key)
            )

    async def evaluation(self, evaluation: Evaluation | str) -> Evaluation:
        """As `Client.evaluation`."""
        return await self._ask(requests.evaluation(evaluation))

    async def evaluations(
        self, limit: int | None = None, before: str | None = None, status: str | None = None
    ) -> EvaluationPage:
        """As `Client.evaluations`."""
        return await self._ask(requests.evaluations(limit, before, status))

    async def wait(
        self,
        evaluation: Evaluation | str,
        timeout_s: float = 3600,
        on_progress: Callable[[Evaluation], None] | None = None,
    ) -> Evaluation:
        """As `Client.wait`."""
        watch = Watch(timeout_s, self._endpoint.timeout_s, on_progress)
        call = requests.evaluation(evaluation)
        found = await self._ask(call, watch.patience)
        while (pause_s := watch.pause_after(found)) is not None:
            await asyncio.sleep(pause_s)
            found = await self._ask(call, watch.patience)
        return found

    async def report(self, evaluation: Evaluation | str, format: str = "markdown") -> str:
        """As `Client.report`."""
        return await self._ask(requests.report(evaluation, format))

    async def delete_evaluation(self, evaluation: Evaluation | str) -> Evaluation | None:
        """As `Client.delete_evaluation`."""
        return await self._ask(requests.delete_evaluation(evaluation))

    async def is_live(self) -> bool:
        """As `Client.is_live`."""
        return await self._says_yes(requests.LIVE)

    async def is_ready(self) -> bool:
        """As `Client.is_ready`."""
        return await self._says_yes(requests.READY)

    async def wait_until_ready(self, timeout_s: float = 60) -> None:
        """As `Client.wait_until_ready`."""
        await self._ask(requests.READY, until_ready(timeout_s))

    async def aclose(self) -> None:
        """Close the connections that are kept for the next call."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.url!r})"

    async def _ask(self, call: Call[Answer], patience: Patience | None = None) -> Answer:
        attempts = Attempts(patience or self._endpoint.patience())
        outcome = await self._send(call, attempts)
        while (pause_s := attempts.pause_after(outcome)) is not None:
            await asyncio.sleep(pause_s)
            outcome = await self._send(call, attempts)
        return answer_of(call, outcome, self._endpoint.url, attempts.made)

    async def _says_yes(self, call: Call[Any]) -> bool:
        return says_yes(await self._send(call, Attempts(self._endpoint.probing())))

    async def _send(self, call: Call[Any], attempts: Attempts) -> Outcome:
        """One attempt."""
        import httpx

        try:
            async with self._http.stream(**self._endpoint.request_arguments(call, attempts)) as response:
                collected = Collected(response, attempts)
                async for chunk in response.aiter_bytes():
                    collected.take(chunk)
            return collected.reply
        except httpx.RequestError as error:
            return failure_of(error, call, attempts.patience.timeout_s)
