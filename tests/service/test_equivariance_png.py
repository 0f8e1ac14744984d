"""The shift probe as a picture: what is drawn, and that nothing in the numbers or names breaks it."""

import asyncio
import io
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.nn.functional import avg_pool2d

from service import drawing, schemas
from tests.service.conftest import service_behind
from tests.service.fakes import FakeModel
from tests.service.pictures import grey

TIMING = schemas.Timing(decode=0, queue=0, inference=0, total=0)


def row(max_shift: int, mean: float, ci95: tuple[float, float]) -> schemas.TableRow:
    return schemas.TableRow(
        max_shift=max_shift, cosine_mean=mean, cosine_std=0.1, ci95=ci95, consistency=None, samples=4, skipped=0,
        sequence_std=None,
    )  # fmt: skip


def maps(*models: tuple[str, Sequence[Sequence[float | None]]]) -> schemas.ProbeResponse:
    probes = [
        schemas.ModelProbe(
            model=name,
            rows=[],
            map=schemas.ShiftMap(
                max_shift=len(cosine) // 2, cosine=[list(line) for line in cosine], samples=1, skipped=0
            ),
            protocol={},
        )
        for name, cosine in models
    ]
    return schemas.ProbeResponse(request_id="x", samples=1, seed=0, models=probes, timing_ms=TIMING)


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return np.asarray(picture.convert("RGB"))


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - colour).max(axis=2) <= 2).any())


YELLOW, VIOLET = (253, 231, 37), (68, 1, 84)  # the ends of viridis


def test_models_share_one_scale_of_colours():
    high, low = [[0.9] * 3] * 3, [[0.1] * 3] * 3
    both = pixels(drawing.draw_maps(maps(("a", high), ("b", low))))
    left, right = both[:, : both.shape[1] * 2 // 5], both[:, both.shape[1] // 2 : both.shape[1] * 4 // 5]
    assert has_colour(right, VIOLET)
    assert not has_colour(left, VIOLET)
    assert has_colour(pixels(drawing.draw_maps(maps(("a", high)))), VIOLET)  # alone its own cosine is the lowest


@pytest.mark.parametrize(
    "models",
    [
        (("$\\broken{math$ <b>", [[1.0]]),),
        (("nothing was measured", [[None] * 3] * 3),),
        (("all equal", [[1.0] * 5] * 5),),
        tuple((f"model-{number}", [[0.5] * 33] * 33) for number in range(5)),
    ],
    ids=["odd name", "all skipped", "no contrast", "five models"],
)
def test_maps_of_any_numbers_and_names_are_drawn(models):
    assert pixels(drawing.draw_maps(maps(*models))).std() > 0


def test_a_table_of_one_row_and_one_without_an_interval_are_drawn():
    for rows in ([row(2, 0.5, (0.4, 0.6))], [row(6, 1.0, (1.0, 1.0)), row(2, 0.9, (0.9 + 1e-12, 0.9))]):
        answer = schemas.TableResponse(
            request_id="x", model="$a", input="noise", samples=4, rows=rows, protocol={}, timing_ms=TIMING
        )
        assert pixels(drawing.draw_table(answer)).std() > 0


async def test_both_forms_of_the_probe_answer_a_picture_when_asked_by_the_option_alone(client, monkeypatch):
    monkeypatch.setattr(FakeModel, "subject", property(lambda _: lambda x: avg_pool2d(x, 4)))  # maps of 8 x 8
    for accept in ("image/png", "application/json"):
        headers = {"Accept": accept}
        options: dict[str, Any] = {"model": "plain", "samples": 4, "max_shift": "1,2", "format": "png"}
        table = await client.get("/v1/equivariance", params=options, headers=headers)
        upload = [("images", grey(1)), ("images", grey(200))]
        options = {"models": "plain", "max_shift": "1", "format": "png"}
        probed = await client.post("/v1/equivariance", params=options, files=upload, headers=headers)
        for response in (table, probed):
            assert response.status_code == 200, response.text
            assert response.headers["Content-Type"] == "image/png"
            assert pixels(response.content).std() > 0
        plain = await client.get(
            "/v1/equivariance", params={"model": "plain", "samples": 4, "max_shift": "1"}, headers=headers
        )
        assert plain.headers["Content-Type"] == "application/json"


async def test_pictures_that_are_drawn_leave_the_threads_to_requests(client, monkeypatch):
    monkeypatch.setattr(FakeModel, "subject", property(lambda _: lambda x: avg_pool2d(x, 4)))
    drawing_begins, may_end = threading.Event(), threading.Event()

    def slowly(_answer: Any) -> bytes:
        drawing_begins.set()
        assert may_end.wait(20)
        return b"a picture"

    monkeypatch.setattr(drawing, "draw_table", slowly)
    options = {"model": "plain", "samples": 4, "max_shift": "1", "format": "png"}
    workers = service_behind(client).settings.worker_threads
    drawn = [asyncio.create_task(client.get("/v1/equivariance", params=options)) for _ in range(workers + 1)]
    assert await asyncio.to_thread(drawing_begins.wait, 20)
    answer = await client.post("/v1/classify", params={"model": "plain"}, files=[("images", grey(1))] * workers)
    assert answer.status_code == 200
    assert not any(task.done() for task in drawn)
    may_end.set()
    assert [(await task).content for task in drawn] == [b"a picture"] * (workers + 1)


@pytest.mark.parametrize("given", ["svg", "PNG", ""])
async def test_another_format_is_refused_before_the_body_is_looked_at(client, given):
    for response in (
        await client.get("/v1/equivariance", params={"format": given}),
        await client.post("/v1/equivariance", params={"format": given}, content=b"no picture"),
    ):
        assert response.status_code == 422
        assert "allowed is json or png" in response.json()["detail"]


async def test_the_description_names_both_media_types(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    for operation in paths["/v1/equivariance"].values():
        content = operation["responses"]["200"]["content"]
        assert set(content) == {"application/json", "image/png"}
        assert "$ref" in content["application/json"]["schema"]
        assert content["image/png"]["schema"] == {"type": "string", "format": "binary"}
