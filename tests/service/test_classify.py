"""`POST /v1/classify` around a foreseeable model: forms, options, answers, determinism, batching, failures."""

import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.conftest import running, service_behind
from tests.service.fakes import POISON
from tests.service.pictures import encoded, grey

PNG = {"Content-Type": "image/png"}


async def classify(client: httpx.AsyncClient, *greys: int, **options: Any) -> httpx.Response:
    """Post grey pictures as multipart."""
    files = [("images", (f"{index}.png", grey(value))) for index, value in enumerate(greys)]
    return await client.post("/v1/classify", params=options, files=files)


async def answer(client: httpx.AsyncClient, *greys: int, **options: Any) -> dict:
    response = await classify(client, *greys, **options)
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_three_forms_give_the_same_answer(client):
    picture = grey(100)
    options = {"seed": 1, "include": "logits"}
    raw = await client.post("/v1/classify", params=options, content=picture, headers=PNG)
    parts = await client.post("/v1/classify", params=options, files={"images": picture})
    text = await client.post("/v1/classify", params=options, json={"images": [base64.b64encode(picture).decode()]})
    answers = [response.json() for response in (raw, parts, text)]
    assert [response.status_code for response in (raw, parts, text)] == [200, 200, 200]
    assert answers[0]["results"] == answers[1]["results"] == answers[2]["results"]


async def test_an_answer_has_the_fields_of_the_contract_and_no_others(client):
    document = await answer(client, 10, 200, ensemble_size=3, seed=5, top_k=2)
    assert set(document) == {"request_id", "model", "ensemble_size", "seed", "results", "timing_ms"}
    assert (document["model"], document["ensemble_size"], document["seed"]) == ("fake", 3, 5)
    assert set(document["timing_ms"]) == {"decode", "queue", "inference", "total"}
    assert [result["index"] for result in document["results"]] == [0, 1]
    for result in document["results"]:
        assert set(result) == {"index", "label", "class_index", "probability", "top", "agreement", "entropy"}
        assert len(result["top"]) == 2
        assert result["top"][0] == {key: result[key] for key in ("label", "class_index", "probability")}
        assert result["top"][0]["probability"] >= result["top"][1]["probability"]
        assert 0 < result["entropy"] <= np.log(3)
        assert result["agreement"] in (1 / 3, 2 / 3, 1.0)


async def test_probabilities_agreement_and_entropy_follow_from_the_members(client, fake):
    document = await answer(client, 40, ensemble_size=5, seed=2, include="members,logits", top_k=3)
    weights = np.array([[float(scale) for scale in s.vertical[1:4]] for s in fake.sample(5, 2)])
    member_logits = 40 / 16 * weights
    logits = member_logits.mean(axis=0)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    (result,) = document["results"]
    np.testing.assert_allclose(result["logits"], logits, rtol=1e-5)
    by_class = {entry["class_index"]: entry["probability"] for entry in result["top"]}
    np.testing.assert_allclose([by_class[c] for c in range(3)], probabilities, rtol=1e-5)
    assert result["class_index"] == probabilities.argmax()
    assert result["agreement"] == pytest.approx((member_logits.argmax(axis=1) == probabilities.argmax()).mean())
    assert result["entropy"] == pytest.approx(-(probabilities * np.log(probabilities)).sum(), rel=1e-5)
    best = np.exp(member_logits).max(axis=1) / np.exp(member_logits).sum(axis=1)
    np.testing.assert_allclose([member["probabilities"][0] for member in document["members"]], best, rtol=1e-5)
    assert [member["labels"] for member in document["members"]] == [
        [fake.labels[c]] for c in member_logits.argmax(axis=1)
    ]


async def test_the_sequences_route_shows_what_classify_uses(client):
    document = await answer(client, 10, ensemble_size=3, seed=9, include="members")
    listed = (await client.get("/v1/sequences", params={"ensemble_size": 3, "seed": 9})).json()
    assert [member["sequence"] for member in document["members"]] == listed["sequences"]
    assert (listed["model"], listed["ensemble_size"], listed["seed"]) == ("fake", 3, 9)
    assert listed["sequences"][0]["shapes"][0] == listed["input_size"] == [32, 32]
    assert listed["sequences"][0]["shapes"][-1] == [8, 8]


async def test_absent_options_take_the_settings_and_a_drawn_seed_is_echoed(make_app):
    async with running(make_app(ensemble_size=2, top_k=1, seed_pool=0)) as client:
        first, second = await answer(client, 10), await answer(client, 10)
        assert first["ensemble_size"] == 2
        assert len(first["results"][0]["top"]) == 1
        assert first["seed"] != second["seed"]
        assert 0 <= first["seed"] < 2**53
        again = await answer(client, 10, seed=first["seed"])
        assert again["results"] == first["results"]


async def test_top_k_beyond_the_classes_lists_all(client):
    assert len((await answer(client, 10, top_k=1000))["results"][0]["top"]) == 3


async def test_a_model_without_sequences_has_one_member_and_shows_none(client):
    document = await answer(client, 10, model="plain", include="members")
    assert (document["model"], document["ensemble_size"]) == ("plain", 1)
    assert "members" not in document
    assert document["results"][0]["agreement"] == 1
    assert (await answer(client, 10, model="plain", ensemble_size=1))["results"] == document["results"]


async def test_a_model_without_sequences_refuses_several_members(client):
    response = await classify(client, 10, model="plain", ensemble_size=4)
    assert response.status_code == 422
    assert "plain takes no scale sequences" in response.json()["detail"]
    assert (await client.get("/v1/sequences", params={"model": "plain"})).status_code == 422


@pytest.mark.parametrize("aggregate", ["mean", "median", "mean_probability"])
async def test_every_aggregation_is_taken(client, aggregate):
    document = await answer(client, 90, seed=1, ensemble_size=5, aggregate=aggregate, include="logits")
    assert len(document["results"][0]["logits"]) == 3


async def test_waiting_requests_of_the_same_members_share_one_forward_pass(client, fake):
    fake.gate.clear()
    held = asyncio.create_task(answer(client, 1, seed=0))
    fake.entered.clear()
    await asyncio.to_thread(fake.entered.wait, 10)
    same = [asyncio.create_task(answer(client, value, seed=3, ensemble_size=2)) for value in range(10, 16)]
    other = asyncio.create_task(answer(client, 20, seed=4, ensemble_size=3))
    service = service_behind(client)
    while service.metrics.registry.get_sample_value("ccnet_queue_passes") != 6 * 2 + 3:
        await asyncio.sleep(0.005)
    fake.passes.clear()
    fake.gate.set()
    await asyncio.gather(held, *same, other)
    assert sorted(fake.passes)[-3:] == [(1, 3), (1, 4), (6, 2)]


async def test_answers_do_not_depend_on_what_else_is_in_the_batch(client):
    """Mixed sizes, seeds, members, aggregations and models at once: each answer is the one it gets alone."""
    dice = np.random.default_rng(0)
    requests = [
        {
            "greys": dice.integers(0, 256, dice.integers(1, 4)).tolist(),
            "seed": int(dice.integers(0, 3)),
            "ensemble_size": int(dice.integers(1, 4)),
            "aggregate": str(dice.choice(["mean", "median"])),
            "include": "members,logits",
        }
        for _ in range(40)
    ]
    for request in requests:
        request["greys"] = [value if value != POISON else 0 for value in request["greys"]]
    alone = [await answer(client, *request.pop("greys"), **request) for request in [dict(r) for r in requests]]
    together = await asyncio.gather(*(answer(client, *r.pop("greys"), **r) for r in [dict(r) for r in requests]))
    for one, other in zip(alone, together, strict=True):
        assert [result["label"] for result in one["results"]] == [result["label"] for result in other["results"]]
        for left, right in zip(one["results"], other["results"], strict=True):
            np.testing.assert_allclose(left["logits"], right["logits"], atol=1e-4)
        assert [member["sequence"] for member in one["members"]] == [m["sequence"] for m in other["members"]]


async def test_a_failing_image_fails_its_own_request_alone_and_tells_nothing(client, fake):
    fake.gate.clear()
    fake.entered.clear()
    held = asyncio.create_task(classify(client, 1, seed=0))
    await asyncio.to_thread(fake.entered.wait, 10)
    waiting = [asyncio.create_task(classify(client, value, seed=0)) for value in (10, POISON, 30)]
    service = service_behind(client)
    while service.metrics.registry.get_sample_value("ccnet_queue_passes") != 12:
        await asyncio.sleep(0.005)
    fake.gate.set()
    responses = await asyncio.gather(held, *waiting)
    assert [response.status_code for response in responses] == [200, 200, 500, 200]
    assert "secret" not in responses[2].text
    problem = responses[2].json()
    assert (problem["status"], problem["request_id"]) == (500, responses[2].headers["X-Request-ID"])


async def test_a_full_queue_answers_429_with_retry_after(make_app, fake):
    async with running(make_app(max_queue_passes=8, max_request_passes=8)) as client:
        fake.gate.clear()
        fake.entered.clear()
        held = asyncio.create_task(classify(client, 1, ensemble_size=1))
        await asyncio.to_thread(fake.entered.wait, 10)
        waiting = asyncio.create_task(classify(client, 1, 2, ensemble_size=4))
        service = service_behind(client)
        while service.metrics.registry.get_sample_value("ccnet_queue_passes") != 8:
            await asyncio.sleep(0.005)
        refused = await classify(client, 3, ensemble_size=1)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "8 wait" in refused.json()["detail"]
        assert service.metrics.registry.get_sample_value("ccnet_requests_rejected_total", {"reason": "queue_full"}) == 1
        fake.gate.set()
        assert [(await task).status_code for task in (held, waiting)] == [200, 200]


async def test_a_deadline_that_passes_answers_504_and_withdraws_the_job(client, fake):
    fake.gate.clear()
    fake.entered.clear()
    held = asyncio.create_task(classify(client, 1))
    await asyncio.to_thread(fake.entered.wait, 10)
    late = await classify(client, 2, timeout_ms=50, ensemble_size=2)
    assert late.status_code == 504
    assert "of 2 members were done when the deadline came; allow more with timeout_ms" in late.json()["detail"]
    service = service_behind(client)
    assert service.metrics.registry.get_sample_value("ccnet_queue_passes") == 0
    fake.gate.set()
    assert (await held).status_code == 200


async def test_probes_answer_while_inference_is_held(client, fake):
    fake.gate.clear()
    fake.entered.clear()
    held = asyncio.create_task(classify(client, 1))
    await asyncio.to_thread(fake.entered.wait, 10)
    for path in ("/health/live", "/health/ready", "/metrics", "/v1/models", "/v1/sequences"):
        assert (await client.get(path)).status_code == 200
    fake.gate.set()
    assert (await held).status_code == 200


async def test_a_request_that_costs_too_many_passes_is_refused_before_decoding(make_app):
    async with running(make_app(max_request_passes=8)) as client:
        files = [("images", b"not even an image")] * 3
        response = await client.post("/v1/classify", params={"ensemble_size": 3}, files=files)
        assert response.status_code == 413
        assert "3 images x 3 members cost 9 passes; one request may cost 8" in response.json()["detail"]


async def test_one_bad_image_among_good_ones_is_named(client):
    files = [("images", grey(1)), ("images", b"text"), ("images", grey(2))]
    response = await client.post("/v1/classify", files=files)
    assert response.status_code == 415
    assert response.json()["detail"].startswith("image 1:")


async def test_pictures_of_different_sizes_and_kinds_mix(client):
    colour = np.zeros((9, 5, 3), dtype=np.uint8)
    files = [("images", grey(1)), ("images", encoded(colour, "WEBP")), ("images", grey(2, size=17))]
    assert len((await client.post("/v1/classify", files=files)).json()["results"]) == 3


async def test_waiting_requests_without_a_seed_share_their_members(client, fake):
    fake.gate.clear()
    fake.entered.clear()
    held = asyncio.create_task(classify(client, 1, seed=5))
    await asyncio.to_thread(fake.entered.wait, 10)
    fake.passes.clear()
    waiting = [
        asyncio.create_task(classify(client, grey, ensemble_size=size)) for grey, size in ((2, 3), (3, 1), (4, 3))
    ]
    service = service_behind(client)
    while service.metrics.registry.get_sample_value("ccnet_queue_passes") != 7:
        await asyncio.sleep(0.005)
    fake.gate.set()
    documents = [response.json() for response in await asyncio.gather(*waiting)]
    await held
    assert len({document["seed"] for document in documents}) == 1
    assert sorted(fake.passes[1:]) == [(2, 2), (3, 1)]  # one member for all, two more for two of them


async def test_when_time_runs_out_fewer_members_answer_if_they_are_enough(make_app, fake):
    async with running(make_app(max_batch_passes=2)) as client:
        fake.takes_s = 0.25  # for each batch of two members
        options = {"ensemble_size": 8, "seed": 3, "min_size": 2, "timeout_ms": 700, "include": "members"}
        response = await classify(client, 9, **options)
        fake.takes_s = 0
        document = response.json()
        assert response.status_code == 200, document
        assert 2 <= document["ensemble_size"] < document["asked_ensemble_size"] == 8
        assert len(document["members"]) == document["ensemble_size"]
        alone = await classify(client, 9, ensemble_size=document["ensemble_size"], seed=3)
        assert alone.json()["results"] == document["results"]


async def test_enough_cannot_be_more_than_all(client):
    response = await classify(client, 9, ensemble_size=2, min_size=3)
    assert response.status_code == 422
    assert "min_size: 3 was given; it may be at most the ensemble size, which is 2" in response.json()["detail"]


async def test_a_process_whose_inference_thread_has_ended_is_not_alive(client, fake):
    fake.dies = True
    assert (await classify(client, 9)).status_code == 503
    for path in ("/health/live", "/health/ready"):
        response = await client.get(path)
        assert response.status_code == 503
        assert "the inference thread ended: SystemExit" in response.json()["detail"]
    assert (await classify(client, 9)).status_code == 503
