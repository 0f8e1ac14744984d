"""Seeds of requests that name none, and the weights that are prepared for them and kept within a budget."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ccnet.checkpoint import load_checkpoint, save_checkpoint
from ccnet.ensemble import ScaleEnsemble
from ccnet.models import CCNet
from ccnet.plan_cache import PlanCache
from ccnet.sequences import sample_scale_sequences
from service.app import create_app
from service.served import load_models
from service.settings import Settings
from service.warming import chosen_seed, prepare_pool
from tests.service.conftest import lively, running, service_behind
from tests.service.pictures import grey

MIB = 2**20
LAYERS = 8


def settings_for(checkpoints: Path, **more: Any) -> Settings:
    values: dict[str, Any] = {"checkpoints": checkpoints, "device": "cpu", "prepared_members": 1}
    return Settings(**(values | more))


async def classify(client: httpx.AsyncClient, **options: Any) -> dict:
    response = await client.post("/v1/classify", params={"include": "logits"} | options, files={"images": grey(90)})
    assert response.status_code == 200, response.text
    return response.json()


def logits_of(document: dict) -> list[float]:
    return document["results"][0]["logits"]


def cache_of(client: httpx.AsyncClient) -> dict[str, float]:
    """What `/metrics` says of the cache: hit, miss, evict, bytes, plans."""
    value = service_behind(client).metrics.registry.get_sample_value
    counts = {event: value("ccnet_plan_cache_events_total", {"event": event}) for event in ("hit", "miss", "evict")}
    held = {what: value(f"ccnet_plan_cache_{what}") for what in ("bytes", "plans")}
    return {name: number for name, number in (counts | held).items() if number is not None}


# Which seed a request gets.


def test_seeds_of_a_pool_are_drawn_evenly_and_a_given_one_is_kept():
    drawn = Counter(chosen_seed(None, 3) for _ in range(3000))
    assert set(drawn) == {0, 1, 2}
    assert min(drawn.values()) > 800  # 1000 are expected, give or take 26
    assert chosen_seed(12345, 3) == 12345
    assert chosen_seed(0, 0) == 0


def test_without_a_pool_any_seed_is_drawn():
    drawn = {chosen_seed(None, 0) for _ in range(100)}
    assert len(drawn) > 90
    assert max(drawn) > 2**16
    assert max(drawn) < 2**32


async def test_requests_without_a_seed_share_the_pool_and_others_get_the_sequences_of_theirs(make_app):
    async with running(make_app(seed_pool=2)) as client:
        listed = [(await client.get("/v1/sequences")).json() for _ in range(60)]
        assert {document["seed"] for document in listed} == {0, 1}
        assert {(await classify(client))["seed"] for _ in range(60)} == {0, 1}
        own = (await client.get("/v1/sequences", params={"seed": 77})).json()
    expected = sample_scale_sequences(4, seed=77)
    assert [sequence["vertical"] for sequence in own["sequences"]] == [[str(s) for s in e.vertical] for e in expected]
    assert own["sequences"] not in [document["sequences"] for document in listed]


async def test_the_echoed_seed_gives_the_answer_again_on_another_replica(checkpoints):
    settings = settings_for(checkpoints, seed_pool=3, ensemble_size=2)
    async with running(create_app(settings)) as one, running(create_app(settings)) as other:
        first = await classify(one)
        again = await classify(other, seed=first["seed"])
    assert first["seed"] in (0, 1, 2)
    np.testing.assert_allclose(logits_of(first), logits_of(again), atol=1e-4)


async def test_a_larger_ensemble_begins_with_the_members_of_a_smaller_one(checkpoints):
    async with running(create_app(settings_for(checkpoints, seed_pool=0))) as client:
        for seed in (0, 3, 2**40):
            drawn = {
                k: (await client.get("/v1/sequences", params={"seed": seed, "ensemble_size": k})).json()["sequences"]
                for k in (1, 4, 16)
            }
            assert drawn[16][:4] == drawn[4]
            assert drawn[4][:1] == drawn[1]


# What is prepared at the start.


def test_the_pool_s_members_are_prepared_of_every_model_with_sequences_the_first_of_all_seeds_first(fake, plain):
    report = prepare_pool([plain, fake], PlanCache(MIB), seeds=2, members=3)
    assert (report.sequences, report.wanted) == (6, 6)
    assert fake.kept == [fake.sample(3, seed)[number] for number in range(3) for seed in range(2)]
    assert plain.kept == []


def test_nothing_is_prepared_without_a_pool_or_without_room(fake):
    assert prepare_pool([fake], PlanCache(MIB), seeds=0, members=4).sequences == 0
    assert prepare_pool([fake], PlanCache(0), seeds=4, members=4).sequences == 0
    assert fake.kept == []


def test_a_large_pool_does_not_hold_up_the_start(fake, monkeypatch):
    monkeypatch.setattr("service.warming.LONGEST_S", 0.0)
    assert prepare_pool([fake], PlanCache(MIB), seeds=65_536, members=64).sequences == 0


async def test_a_request_without_a_seed_finds_its_weights_prepared(checkpoints, caplog):
    with caplog.at_level(logging.INFO, logger="ccnet.service"):
        async with running(create_app(settings_for(checkpoints, seed_pool=2, ensemble_size=2))) as client:
            (report,) = [r.fields for r in caplog.records if r.message.startswith("weights prepared")]
            start = cache_of(client)
            assert (report["sequences"], report["wanted"], report["plan_cache_bytes"]) == (4, 4, start["bytes"])
            assert start["bytes"] > 20 * MIB
            for _ in range(4):
                await classify(client)
            warm = cache_of(client)
            assert warm["hit"] >= start["hit"] + 4 * LAYERS
            assert {name: warm[name] for name in ("miss", "evict", "bytes", "plans")} == {
                name: start[name] for name in ("miss", "evict", "bytes", "plans")
            }


async def test_a_larger_ensemble_of_the_pool_makes_only_the_members_that_are_new(checkpoints):
    async with running(create_app(settings_for(checkpoints, seed_pool=1, ensemble_size=2))) as client:
        before = cache_of(client)
        await classify(client, ensemble_size=3)
        after = cache_of(client)
        assert 0 < after["miss"] - before["miss"] < LAYERS  # the first layer is everybody's
        assert after["hit"] - before["hit"] >= LAYERS


async def test_the_log_tells_how_each_model_computes(checkpoints, caplog):
    with caplog.at_level(logging.INFO, logger="ccnet.service"):
        async with running(create_app(settings_for(checkpoints, seed_pool=0))) as client:
            models = (await client.get("/v1/models")).json()["models"]
    (line,) = [record.fields for record in caplog.records if record.message == "models loaded"]
    assert line["backends"] == {model["name"]: model["backend"] for model in models}
    assert line["native_kernels"] in ("portable", "avx2", "avx512", "missing")
    assert (line["why_missing"] is None) == (line["native_kernels"] != "missing")


async def test_the_log_tells_why_there_are_no_native_kernels(make_app, caplog, monkeypatch):
    monkeypatch.setattr("service.app.kernels", lambda: None)
    monkeypatch.setattr("service.app.why_missing", lambda: "they were not built")
    with caplog.at_level(logging.INFO, logger="ccnet.service"):
        async with running(make_app()):
            pass
    (line,) = [record.fields for record in caplog.records if record.message == "models loaded"]
    assert (line["native_kernels"], line["why_missing"]) == ("missing", "they were not built")


# What is kept.


async def test_kept_weights_stay_within_their_budget_and_answers_are_the_library_s(checkpoints):
    checkpoint = load_checkpoint(checkpoints / "tiny-ccnet")
    assert isinstance(checkpoint.model, CCNet)
    picture = checkpoint.preprocess(np.full((1, 28, 28, 1), 90, dtype=np.uint8))
    expected = {seed: ScaleEnsemble(checkpoint.model)(picture, size=2, seed=seed).logits[0] for seed in range(4)}
    budget = 100 * MIB
    async with running(create_app(settings_for(checkpoints, plan_cache_bytes=budget))) as client:
        start = cache_of(client)
        assert 0 < start["bytes"] <= budget
        for seed in (0, 1, 2, 3, 2, 3, 1, 0):
            document = await classify(client, seed=seed, ensemble_size=2)
            np.testing.assert_allclose(logits_of(document), expected[seed], atol=1e-4)
            assert cache_of(client)["bytes"] <= budget
        assert cache_of(client)["evict"] > start["evict"]


async def test_without_room_weights_are_made_for_every_request(checkpoints):
    async with running(create_app(settings_for(checkpoints, plan_cache_bytes=0))) as client:
        first, second = [await classify(client, seed=5, ensemble_size=2) for _ in range(2)]
        np.testing.assert_allclose(logits_of(first), logits_of(second), atol=1e-4)
        assert (cache_of(client)["bytes"], cache_of(client)["plans"]) == (0, 0)


def test_all_models_share_one_cache(checkpoints, tmp_path):
    checkpoint = load_checkpoint(checkpoints / "tiny-ccnet")
    for name in ("one", "two"):
        save_checkpoint(
            checkpoint.model, tmp_path / name, labels=checkpoint.labels, preprocessing=checkpoint.preprocessing
        )
    plans = PlanCache(10**9)
    one, two = load_models(settings_for(tmp_path), plans).values()
    sizes = []
    for model in (one, two):
        model.keep(model.sample(1, 0))
        sizes.append(plans.stats.nbytes)
    assert sizes[1] == 2 * sizes[0] > 0


@pytest.mark.parametrize("distribution", [{"method": "conditioned", "max_numerator": 7}, {"std": 0.01}])
def test_sequences_are_drawn_as_the_checkpoint_says(checkpoints, tmp_path, distribution):
    checkpoint = load_checkpoint(checkpoints / "tiny-ccnet")
    save_checkpoint(
        lively(CCNet(1, 10)),
        tmp_path / "model",
        labels=checkpoint.labels,
        preprocessing=checkpoint.preprocessing,
        scale_distribution=distribution,
    )
    (model,) = load_models(settings_for(tmp_path), PlanCache(0)).values()
    assert list(model.sample(3, 8)) == sample_scale_sequences(3, seed=8, **distribution)
    assert list(model.sample(3, 8)) != sample_scale_sequences(3, seed=8)
