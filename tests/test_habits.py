"""The repository keeps its word: documents that run, links that lead somewhere, one version, nothing unfinished."""

import ast
import doctest
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.parse import unquote

import pytest

import ccnet

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINKING = sorted([*DOCUMENTS, *(ROOT / "deploy").rglob("*.md"), *(ROOT / "checkpoints").rglob("*.md")])

FENCE = re.compile(r"^```(?P<language>[^\n`]*)\n(?P<body>.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*#*$", re.MULTILINE)

TEXT_SUFFIXES = {
    ".cff",
    ".cfg",
    ".css",
    ".html",
    ".js",
    ".json",
    ".lock",
    ".md",
    ".py",
    ".sh",
    ".toml",
    ".yaml",
    ".yml",
}
TEXT_NAMES = {"Makefile", "Dockerfile", ".dockerignore", ".editorconfig", ".gitignore", "run"}
NOT_OURS = {".git", ".venv", "__pycache__", "build", "dist", "node_modules", "runs"}


def python_blocks(text: str) -> list[tuple[int, str]]:
    """(line of the first statement, source) of each fenced block whose language is exactly `python`."""
    return [
        (text.count("\n", 0, match.start("body")) + 1, match["body"])
        for match in FENCE.finditer(text)
        if match["language"].strip() == "python"
    ]


def run_document(path: Path) -> int:
    """Execute a document's blocks in one namespace, as a reader would type them; returns how many there were."""
    namespace: dict[str, object] = {"__name__": "__document__"}
    blocks = python_blocks(path.read_text(encoding="utf-8"))
    for line, source in blocks:
        if ">>>" in source:
            example = doctest.DocTestParser().get_doctest(source, namespace, path.name, str(path), line - 1)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            report: list[str] = []
            runner.run(example, out=report.append, clear_globs=False)
            namespace = example.globs
            assert not runner.failures, f"{path.name}:{line}\n" + "".join(report)
        else:
            # Blank lines in front make a traceback name the line of the document.
            exec(compile("\n" * (line - 1) + source, str(path), "exec"), namespace)
    return len(blocks)


def anchors(text: str) -> set[str]:
    """The names by which the headings of a document can be linked to."""
    headings = [match["text"] for match in HEADING.finditer(FENCE.sub("", text))]
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def broken_links(path: Path) -> list[str]:
    """The links of a document that lead to no file or no heading; links to other hosts are not followed."""
    text = path.read_text(encoding="utf-8")
    broken = []
    for match in LINK.finditer(FENCE.sub("", text)):
        target = match["target"]
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8"))):
            broken.append(target)
    return broken


def text_files() -> list[Path]:
    """Every text file of the project, but for this one, which has to name what it looks for."""
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if not NOT_OURS.intersection(path.relative_to(ROOT).parts)
        and not any(part.endswith((".egg-info", "_cache")) for part in path.parts)
        and (path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES)
        and path.is_file()
        and path != Path(__file__).resolve()
    ]


UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b")
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users)/")
HOW_IT_WAS_MADE = re.compile(r"\b(?:sub-?agents?|this[ ]session|C[E]O|issue [#]?\d+)\b", re.IGNORECASE)


def unwanted(text: str) -> list[str]:
    """Each line that is unfinished, names a folder of one machine, or speaks of how the project was made."""
    return [
        f"{number}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), 1)
        if UNFINISHED.search(line) or MACHINE_PATH.search(line) or HOW_IT_WAS_MADE.search(line)
    ]


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_of_a_document_run(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run_document(path)


def test_a_block_that_fails_is_noticed(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("# Title\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError):
        run_document(document)


def test_a_doctest_block_that_prints_something_else_is_noticed(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("```python\n>>> 1 + 1\n3\n```\n")
    with pytest.raises(AssertionError, match=r"document\.md:2"):
        run_document(document)


def test_blocks_of_other_languages_are_left_alone(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("```text\nassert False\n```\n\n```python\nseen = 1\n```\n")
    assert run_document(document) == 1


@pytest.mark.parametrize("path", LINKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_document_lead_somewhere(path):
    assert broken_links(path) == []


def test_a_link_to_a_missing_file_or_heading_is_noticed(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("# A `b` c\n\n[a](missing.md) [b](#a-b-c) [c](#d) [d](document.md#a-b-c) [e](https://host/x)\n")
    assert broken_links(document) == ["missing.md", "#d"]


def test_one_version_stands_everywhere():
    version = pyproject()["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+|\.dev\d+)?", version)
    assert ccnet.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_lock_pins_every_direct_dependency_and_names_no_place():
    project = pyproject()["project"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[^\w-]", line)[0] for line in wanted}
    assert names <= pinned.keys()
    assert "+" not in pinned["torch"], "a local version such as +cpu cannot be had from an index"
    assert "://" not in lock
    assert not re.search(r"^\s*-", lock, re.MULTILINE), "options such as --find-links belong to the machine"


def imported_distributions(package: str) -> list[set[str]]:
    """For every module that the files of a package import from elsewhere: what gives it, under the names of pip."""
    providers = packages_distributions()
    modules: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    foreign = modules - sys.stdlib_module_names - {"ccnet", "service"}
    return [{name.lower().replace("_", "-") for name in providers.get(module, [module])} for module in foreign]


@pytest.mark.parametrize(
    ("package", "extras"), [("ccnet", ["client", "figures", "gpu"]), ("service", ["service", "tracing"])]
)
def test_what_a_package_imports_is_declared(package, extras):
    project = pyproject()["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    declared = {re.split(r"[^\w-]", line)[0] for line in lines} | {
        "starlette",
        "pydantic-core",
    }  # fastapi's, pydantic's
    imported = imported_distributions(package)
    assert {"torch"} in imported
    assert [names for names in imported if not names & declared] == []


def test_every_target_of_the_makefile_is_explained_by_help():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = {name for line in re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE) for name in line.split()}
    explained = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert phony == explained
    assert {"setup", "serve", "test", "lint", "bench", "docker-smoke"} <= explained


def test_nothing_is_unfinished_and_no_machine_is_named():
    files = text_files()
    assert ROOT / "Makefile" in files
    found = {str(path.relative_to(ROOT)): unwanted(path.read_text(encoding="utf-8")) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("line", ["# TO" + "DO: later", "see /ho" + "me/someone/x", "as iss" + "ue #7 asks"])
def test_an_unwanted_line_is_noticed(line):
    assert unwanted(f"fine\n{line}\n") == [f"2: {line}"]
