"""Schemathesis over the service's OpenAPI document: is every answer one that the document foresees?

It makes requests of the document's schemas, right and wrong ones, and compares every answer with them. Twice: without
API keys, and with one, where it leaves the key out or sends a wrong one too. 503 and 504 are documented and right where
a deadline of a millisecond is asked for. Not judged is whether each request that fits the schemas is accepted, since no
schema can say that bytes are a picture.
"""

import base64
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.process import running_service
from benchmarks.serving.requirements import require
from ccnet.benchmarks.report import Result, Row, Target

KEY = "a-key-for-the-benchmark"
SEED = 0
# Bounds small enough that what is asked at random is cheap; everything above them is refused on the same path.
SETTINGS: dict[str, Any] = {
    "ensemble_size": 1,
    "max_images_per_request": 8,
    "max_request_passes": 16,
    "max_probe_passes": 64,
    "probe_samples": 2,
    "inference_threads": 1,
}
# What is counted, and the checks of Schemathesis that find it.
GROUPS = {
    "server errors": ("not_a_server_error",),
    "answers that do not conform": (
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "allow_header_conformance",
    ),
    "wrong requests accepted": ("negative_data_rejection", "unsupported_method", "missing_required_header"),
    "requests accepted without their key": ("ignored_auth",),
}
SHOWN = 12  # failures in the notes, one for each check and operation
SHOWN_BYTES = 300  # of a body

# Words for the parameters, so that not every request is about a model that there is not; others are made up as well.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
[checks.negative_data_rejection]  # whichever fault of a request is found first decides, so 413 too
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
[dictionaries]
names = { values = ["fashion-mnist-ccnet", "fashion-mnist-convnet"] }
versions = { values = ["1"] }
shifts = { values = ["1", "2", "1,2"] }
small = { values = [1, 2] }
samples = { values = [2, 3] }
included = { values = ["logits", "members", "members,logits"] }
[parameters]
"path.name" = { dictionary = "names", probability = 0.8 }
"path.version" = { dictionary = "versions", probability = 0.8 }
"query.model" = { dictionary = "names", probability = 0.8 }
"query.models" = { dictionary = "names", probability = 0.8 }
"query.max_shift" = { dictionary = "shifts", probability = 0.7 }
"query.ensemble_size" = { dictionary = "small", probability = 0.7 }
"query.samples" = { dictionary = "samples", probability = 0.7 }
"query.include" = { dictionary = "included", probability = 0.7 }
"""
CONFIG_OF_KEY = f"""
[auth.openapi.HTTPBearer]
bearer = "{KEY}"
[auth.openapi.APIKeyHeader]
api_key = "{KEY}"
"""


@dataclass
class Findings:
    """What a run of Schemathesis found.

    Attributes:
        cases: Requests that were made.
        statuses: How often each came; 0 is none.
        failures: How often each check failed.
        examples: One request for each check and operation, as a line.
        unexamined: Operations of which it says that they, or their answers, cannot be examined, and why.
    """

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    unexamined: dict[str, str] = field(default_factory=dict)


def schema(result: Result, quick: bool) -> None:
    """Requests made of the OpenAPI document, without keys and with one."""
    require("schemathesis")
    for case, keys, config in (("without keys", "", CONFIG), ("with a key", KEY, CONFIG + CONFIG_OF_KEY)):
        with running_service(api_keys=keys, **SETTINGS) as service:
            findings = _examine(service.url, config, quick, judges_keys=bool(keys))
            ended = service.popen.poll() is not None
        result.add(Row(case, "cases", findings.cases, ""))
        for what, checks in GROUPS.items():
            if keys or what != "requests accepted without their key":
                count = sum(findings.failures[check] for check in checks)
                result.add(Row(case, what, count, ""), Target(f"schemathesis: {what}", 0))
        unanswered = findings.statuses[0]
        result.add(Row(case, "without an answer", unanswered, ""), Target("schemathesis: without an answer", 0))
        result.add(Row(case, "process ended", ended, ""), Target("schemathesis: process ended", 0))
        result.add(Row(case, "operations not examined", len(findings.unexamined), ""))
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(findings.statuses.items()))
        result.notes.append(f"{case}: {statuses}")
        result.notes += [f"{case}: not examined: {name}: {why}" for name, why in findings.unexamined.items()]
        result.notes += [f"{case}: {line}" for line in list(findings.examples.values())[:SHOWN]]


def _examine(url: str, config: str, quick: bool, *, judges_keys: bool) -> Findings:
    """Run Schemathesis and read its report."""
    checks = [check for what in GROUPS.values() for check in what if judges_keys or check != "ignored_auth"]
    with tempfile.TemporaryDirectory() as folder:
        config_file, report = Path(folder, "schemathesis.toml"), Path(folder, "report.ndjson")
        config_file.write_text(config, encoding="utf-8")
        options = {
            "--checks": ",".join(checks),
            "--max-examples": 3 if quick else 30,
            "--phases": "examples,coverage" if quick else "examples,coverage,fuzzing,stateful",
            "--seed": SEED,
            "--request-timeout": 120,
            "--report-ndjson-path": report,
        }
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
        command += ["--config-file", str(config_file), "run", f"{url}/openapi.json", "--continue-on-failure"]
        command += [str(part) for option in options.items() for part in option]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if ended.returncode not in (0, 1) or not report.exists():  # 1: it has found something
            raise RuntimeError(f"Schemathesis ended with status {ended.returncode}: {ended.stdout}{ended.stderr}")
        return _read(report)


def _read(report: Path) -> Findings:
    findings = Findings()
    with report.open(encoding="utf-8") as lines:
        for line in lines:
            read_event(findings, line)
    return findings


def read_event(findings: Findings, line: str) -> None:
    """Take one line of a report of Schemathesis into account.

    Raises:
        RuntimeError: It gave up.
    """
    ((kind, event),) = json.loads(line).items()
    if kind == "ScenarioFinished":
        _read_scenario(findings, event["recorder"])
    elif kind == "NonFatalError":
        why = event["value"].get("message", event["value"].get("type", ""))
        findings.unexamined.setdefault(str(event["label"]), " ".join(why.split())[:SHOWN_BYTES])
    elif kind == "FatalError":
        raise RuntimeError(f"Schemathesis gave up: {line[:2000]}")


def _read_scenario(findings: Findings, recorder: dict[str, Any]) -> None:
    interactions = recorder.get("interactions", {})
    findings.cases += len(interactions)
    for interaction in interactions.values():
        answer = interaction.get("response")
        findings.statuses[answer["status_code"] if answer else 0] += 1
    for number, checks in recorder.get("checks", {}).items():
        for check, failure in _failed(checks):
            findings.failures[check] += 1
            key = (check, str(failure.get("operation", recorder["label"])))
            if key not in findings.examples:
                message = " ".join(str(failure.get("message", "")).split())
                findings.examples[key] = f"{check}: {message}: {_shown(interactions[number])}"


def _failed(checks: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for check in checks:
        if check["status"] == "failure":
            yield check["name"], check["failure_info"]["failure"]


def _shown(interaction: dict[str, Any]) -> str:
    """A request and its status, to be made again by hand."""
    request, answer = interaction["request"], interaction.get("response")
    headers = {name: values[0] for name, values in request["headers"].items() if name.lower() != "user-agent"}
    body = (request.get("body") or {}).get("$base64", "")
    data = base64.b64decode(body)[:SHOWN_BYTES] if body else b""
    return (
        f"{answer['status_code'] if answer else 'no answer'} to {request['method']} {request['uri']} {headers} {data!r}"
    )
