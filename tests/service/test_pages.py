"""The pages need no other host, and the API's description covers what the service takes and answers."""

import re

import pytest

from service.errors import REFUSALS
from service.pages import WEB
from tests.service.conftest import running


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_loads_only_what_this_service_serves(client, path):
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert not re.findall(r"<script(?![^>]*\bsrc=)", page.text)
    assert not re.findall(r"\bon\w+=|style=", page.text)
    used = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert used
    for address in used:
        assert address.startswith("/")
        assert (await client.get(address)).status_code == 200


def test_the_pages_name_no_other_host():
    for file in WEB.iterdir():
        addresses = re.findall(r"https?://[^\s\"']+", file.read_text(encoding="utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}


def test_the_page_is_small_and_never_sets_markup_from_text():
    assert len((WEB / "index.html").read_text().splitlines()) < 200
    script = (WEB / "app.js").read_text()
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


async def test_answers_may_not_be_sniffed(client):
    for path in ("/", "/web/app.js", "/v1/models", "/nowhere"):
        assert (await client.get(path)).headers["X-Content-Type-Options"] == "nosniff"


async def test_files_outside_the_web_folder_are_not_served(client):
    for path in ("/web/../app.py", "/web/%2e%2e/app.py", "/web/..%2fapp.py", "/swagger/../core.py"):
        assert (await client.get(path)).status_code == 404


async def test_the_description_shows_the_three_forms_and_every_refusal(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/v1/classify", "/v1/equivariance"):
        post = paths[path]["post"]
        assert set(post["requestBody"]["content"]) == {
            "image/png",
            "image/jpeg",
            "image/webp",
            "multipart/form-data",
            "application/json",
        }
        documented = {int(status) for status in post["responses"]}
        assert documented == {200} | {refusal.status for refusal in REFUSALS} - {409, 499}  # 409: evaluations alone
        for status, response in post["responses"].items():
            answers = {"application/json", "image/png"} if path == "/v1/equivariance" else {"application/json"}
            assert set(response["content"]) == (answers if status == "200" else {"application/problem+json"})


@pytest.mark.parametrize("keys", [[], ["a-key-of-many-characters"]])
async def test_the_description_says_which_paths_demand_a_key(make_app, keys):
    async with running(make_app(api_keys=keys)) as client:
        document = (await client.get("/openapi.json")).json()
        documented = {path for path, at in document["paths"].items() for each in at.values() if "security" in each}
        methods = [(path, method) for path, at in document["paths"].items() for method in at]
        demanding = {
            path
            for path, method in methods
            if (await client.request(method, path.format(name="fake", version="1", id="none"))).status_code == 401
        }
    assert documented == demanding
    assert bool(demanding) is bool(keys)


async def test_the_description_knows_no_other_form_of_error(client):
    assert "HTTPValidationError" not in (await client.get("/openapi.json")).text


async def test_the_description_names_every_option_with_its_range(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    options = {option["name"]: option for option in paths["/v1/classify"]["post"]["parameters"]}
    assert set(options) == {"ensemble_size", "seed", "model", "top_k", "aggregate", "include", "timeout_ms", "min_size"}
    size = next(part for part in options["ensemble_size"]["schema"]["anyOf"] if part["type"] == "integer")
    assert (size["minimum"], size["maximum"]) == (1, 64)
    assert all(option["description"] for option in options.values())


async def test_the_example_of_the_description_is_taken(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    example = paths["/v1/classify"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert (await client.post("/v1/classify", json=example)).status_code == 200
