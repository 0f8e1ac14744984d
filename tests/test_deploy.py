"""What is deployed agrees with what is served: alerts ask for series that exist, the image finds what it copies."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.metrics import Metrics

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
ALERT_TESTS = ROOT / "tests" / "deploy" / "alerts.yml"


def run_promtool(*arguments: str) -> subprocess.CompletedProcess:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def served_series() -> set[str]:
    """Every name under which a sample of the service's registry is scraped, whether it has samples yet or not."""
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}
    families = Metrics().registry.collect()
    return {family.name + suffix for family in families for suffix in suffixes[family.type]}


def test_alerts_ask_only_for_series_that_the_service_has():
    expressions = re.sub(r"#.*", "", RULES.read_text(encoding="utf-8"))
    asked = set(re.findall(r"\b(ccnet_\w+)\{", expressions))
    assert asked
    assert asked <= served_series()


def test_prometheus_takes_the_configuration():
    result = run_promtool("check", "config", str(ROOT / "deploy" / "prometheus" / "prometheus.yml"))
    assert result.returncode == 0, result.stderr


def test_each_alert_fires_on_its_fault_and_none_on_a_healthy_service():
    result = run_promtool("test", "rules", str(ALERT_TESTS))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_build_context_holds_everything_that_the_dockerfile_copies():
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if re.match(r"COPY (?!--from)", line)]
    sources = {source for line in copied for source in line}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert sources == kept
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_image_builds_its_own_kernels_and_ships_no_compiler():
    stages = re.split(r"^FROM ", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    installing = [
        stage for stage in stages if re.search(r"^RUN .*(\n.*)*?apt-get install .*g\+\+", stage, re.MULTILINE)
    ]
    (building,) = installing
    assert "COPY LICENSE README.md setup.py" in building
    assert building is not stages[-1]
    assert stages[-1].startswith("${BASE_IMAGE}\n"), "the shipped stage begins anew, without what the others installed"
    assert "--from=project /opt/project" in stages[-1]
    assert "**/*.so" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the Makefile in which everything is older than the installation."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for number, name in enumerate(
        ("pyproject.toml", "requirements.lock", "setup.py", "ccnet/native/kernels.cpp", "ccnet/native/layer.h",
         ".venv/.installed")
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1_000_000 + number, 1_000_000 + number))
    return tmp_path


def is_up_to_date(folder: Path) -> bool:
    status = subprocess.run(["make", "--question", "setup"], cwd=folder, capture_output=True, check=False).returncode
    assert status in (0, 1)
    return status == 0


@pytest.mark.parametrize("name", ["setup.py", "ccnet/native/kernels.cpp", "ccnet/native/layer.h", "requirements.lock"])
def test_a_changed_source_of_the_kernels_installs_again(installed, name):
    assert is_up_to_date(installed)
    (installed / name).touch()
    assert not is_up_to_date(installed)


def test_the_health_check_of_the_image_asks_for_readiness():
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^HEALTHCHECK .*\\\n\s+CMD \[.*/health/ready", dockerfile, re.MULTILINE)
