"""Spans as a collector gets them: of requests and their stages, and of batches, linked to what they served."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service import tracing
from service.settings import Settings
from tests.service.conftest import service_behind
from tests.service.fakes import POISON
from tests.service.pictures import grey

PNG = {"Content-Type": "image/png"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PATIENCE_S = 30


class Collector:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.end = tracing.use(provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.end()


async def test_a_request_has_its_stages_and_continues_the_trace_of_its_client(client, collector):
    headers = PNG | {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "mine"}
    await client.post("/v1/classify?ensemble_size=3&model=fake", content=grey(1), headers=headers)
    (request,) = collector.named("POST /v1/classify")
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    given = {"http.route": "/v1/classify", "http.response.status_code": 200, "ccnet.request_id": "mine"}
    assert given.items() <= request.attributes.items()
    assert (request.attributes["ccnet.passes"], request.attributes["ccnet.model"]) == (3, "fake")
    stages = [span for name in ("decode", "queue", "forward") for span in collector.named(name)]
    assert [span.name for span in stages] == ["decode", "queue", "forward"]
    for span in stages:
        assert span.parent.span_id == request.context.span_id
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time
    decode, queue, forward = stages
    assert decode.end_time <= queue.start_time
    assert queue.end_time == forward.start_time


async def test_a_batch_is_linked_to_the_requests_that_it_served(client, collector, fake):
    fake.entered.clear()
    fake.gate.clear()
    path = "/v1/classify?ensemble_size=1&seed=1&model=fake"
    first = asyncio.create_task(client.post(path, content=grey(1), headers=PNG))
    assert await asyncio.to_thread(fake.entered.wait, PATIENCE_S)
    others = [asyncio.create_task(client.post(path, content=grey(value), headers=PNG)) for value in (2, 3)]
    while len(collector.named("decode")) < 3:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    fake.gate.set()
    await asyncio.gather(first, *others)
    requests = {span.context.span_id for span in collector.named("POST /v1/classify")}
    batches = collector.named("batch")
    linked = [link.context.span_id for batch in batches for link in batch.links]
    assert len(requests) == 3
    assert sorted(linked) == sorted(requests)
    assert [len(batch.links) for batch in batches] == [1, 2]
    assert all(batch.parent is None for batch in batches)


async def test_a_failure_is_marked_and_a_bad_traceparent_begins_a_new_trace(client, collector):
    headers = PNG | {"traceparent": "00-nonsense"}
    await client.post("/v1/classify?model=fake", content=grey(POISON), headers=headers)
    (request,) = collector.named("POST /v1/classify")
    assert request.parent is None
    assert request.status.status_code is StatusCode.ERROR
    await client.get("/nowhere/secret-path")
    (unknown,) = collector.named("GET")
    assert unknown.attributes["http.response.status_code"] == 404
    assert "secret-path" not in unknown.to_json()


async def test_a_probe_has_a_queue_and_a_batch_too(client, collector):
    with tracing.request_span("GET", {}):
        await service_behind(client).engine.probe(lambda progress: None, passes=1)
    (request,) = collector.named("GET")
    (batch,) = collector.named("batch")
    assert [link.context.span_id for link in batch.links] == [request.context.span_id]
    for name in ("queue", "forward"):
        (span,) = collector.named(name)
        assert span.parent.span_id == request.context.span_id


async def test_without_tracing_no_span_is_made(client):
    assert tracing.current() is None
    with tracing.request_span("GET", {"traceparent": f"00-{TRACE}-{PARENT}-01"}) as span:
        assert span is None
    assert (await client.post("/v1/classify", content=grey(1), headers=PNG)).status_code == 200


def test_without_tracing_none_of_its_packages_is_imported():
    code = (
        "import sys, service.app, service.tracing; print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_tracing_without_its_packages_says_what_to_install(monkeypatch):
    assert Settings(tracing="otlp").tracing == "otlp"
    monkeypatch.setattr("service.settings.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'ccnet\[tracing\]'"):
        Settings(tracing="otlp")
