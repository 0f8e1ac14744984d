"""docs/paper.md, made of the results that are kept beside it; nothing in it is written by hand.

A result is published as NAME.json and NAME.png in docs/paper. It comes from a full run of a committed source tree, and
it is small: what is bulky stays in the steps.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ccnet import provenance
from ccnet.errors import CcnetError
from ccnet.files import write_atomically
from ccnet.paper.catalogue import ITEMS, Item
from ccnet.paper.findings import grid, tables

MOST_JSON_BYTES, MOST_PICTURE_BYTES = 50_000, 200_000
FOLDER, PAGE = "paper", "paper.md"  # under docs
_VERDICTS = {"holds": "holds", "fails": "**fails**", "undecided": "undecided"}
_INTRODUCTION = """# The paper's tables and figures, beside ours

This page is made by `ccnet paper --publish` of the results in [docs/paper](paper); a test holds it to them. Of every
claim it says whether it *holds*, *fails* or cannot be decided by what was measured, and gives the numbers. Claims
marked (ours) are not the paper's: they are what its claims make one ask.

To run one again: `ccnet paper NAME`, with `--quick` in a minute or two to see that it works. `ccnet paper --list` names
them all. What is kept of an interrupted run is taken up by the next one."""


def docs_folder() -> Path:
    """`docs` of a source tree.

    Raises:
        CcnetError: the package is installed without one.
    """
    folder = Path(__file__).resolve().parents[2] / "docs"
    if not (folder / "architecture.md").is_file():
        raise CcnetError("results are published into docs/ of a source tree; this package is installed without one")
    return folder


def kept(folder: Path, item: Item) -> dict[str, Any] | None:
    """The result of an item in a folder; None where there is none."""
    path = folder / f"{item.name}.json"
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def require_publishable(*, quick: bool, commit: str | None = None) -> None:
    """Refuse a run whose results could not be published, before it begins.

    Raises:
        CcnetError: it is a quick one, or the source tree differs from its commit.
    """
    if quick:
        raise CcnetError("a quick run is not published: its figures mean little; leave out --quick or --publish")
    _require_clean(commit or provenance.git_commit() or "unknown", "this run", "commit what differs in ccnet/ first")


def publish(documents: Sequence[dict[str, Any]], results: Path, docs: Path) -> None:
    """Put results and their pictures into docs/paper and make docs/paper.md anew.

    Args:
        documents: as `run_items` gives them.
        results: where it kept them, with their pictures.
        docs: of the source tree.

    Raises:
        CcnetError: a quick run, one of a tree that differed from its commit, or a result that is too large; then
            nothing is written.
    """
    files: dict[Path, bytes] = {}
    for document in documents:
        require_publishable(quick=document["quick"], commit=document["git_commit"])
        for commit in document["step_commits"]:
            _require_clean(commit, f"a kept step of {document['item']}", "run it again with --fresh")
        name = document["item"]
        files[docs / FOLDER / f"{name}.json"] = _within(name, _compact(document), MOST_JSON_BYTES)
        picture = results / f"{name}.png"
        if picture.is_file():
            files[docs / FOLDER / picture.name] = _within(name, picture.read_bytes(), MOST_PICTURE_BYTES)
    (docs / FOLDER).mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        write_atomically(path, content)
    write_page(docs)


def write_page(docs: Path) -> None:
    """Make docs/paper.md anew, of what is published."""
    write_atomically(docs / PAGE, page(docs / FOLDER).encode())


def _require_clean(commit: str, what: str, mend: str) -> None:
    if commit == "unknown" or commit.endswith("-dirty"):
        raise CcnetError(f"{what} belongs to the source tree {commit!r}, which nobody can get back; {mend}")


def _within(name: str, content: bytes, most: int) -> bytes:
    if len(content) > most:
        raise CcnetError(
            f"{name} has {len(content):,} bytes; at most {most:,} are published: keep what is bulky in its steps"
        )
    return content


def _compact(document: dict[str, Any]) -> bytes:
    """JSON, without where this machine keeps its files."""
    shown = {key: value for key, value in document.items() if key not in ("checkpoints", "data_dir")}
    return (json.dumps(shown, indent=1, ensure_ascii=False) + "\n").encode()


def page(folder: Path) -> str:
    """The page, of the results in a folder.

    Args:
        folder: docs/paper: NAME.json, NAME.png.

    Returns:
        Markdown; links are relative to the folder above.
    """
    documents = [(item, kept(folder, item)) for item in ITEMS]
    parts = [_INTRODUCTION, _summary(documents)]
    for item, document in documents:
        picture = f"{FOLDER}/{item.name}.png" if (folder / f"{item.name}.png").is_file() else None
        parts.append(_section(item, document, picture))
    return "\n\n".join(parts) + "\n"


def _summary(documents: Sequence[tuple[Item, dict[str, Any] | None]]) -> str:
    lines = []
    for item, document in documents:
        link = f"[{_words(item.name)}](#{_words(item.name).lower().replace(' ', '-')})"
        if document is None:
            lines.append([link, "not measured yet", "", ""])
            continue
        for claim in document["claims"]:
            lines.append([link, claim["text"], _VERDICTS[claim["verdict"]], claim["evidence"]])
            link = ""
    return "## Summary\n\n" + markdown_table(["item", "claim", "verdict", "evidence"], lines)


def _section(item: Item, document: dict[str, Any] | None, picture: str | None) -> str:
    head = f"## {_words(item.name)}\n\n{item.title} ({item.source}). Run it: `ccnet paper {item.name}`."
    if document is None:
        return f"{head}\n\nNot measured yet."
    parts = [head]
    if picture is not None:
        parts.append(f"![{_cell(item.title)}]({picture})")
    parts.append("\n".join(_claim(claim) for claim in document["claims"]))
    for heading, rows in tables(document["rows"]):
        columns, lines = grid(rows)
        parts.append((f"**{_cell(heading)}**\n\n" if heading else "") + markdown_table(columns, lines))
    parts.append("\n".join(f"- {note}" for note in document["notes"]))
    return "\n\n".join([*(part for part in parts if part), _provenance(document)])


def _claim(claim: dict[str, Any]) -> str:
    return f"- {_VERDICTS[claim['verdict']]}: {claim['text']}: {claim['evidence']}"


def _provenance(document: dict[str, Any]) -> str:
    """Where the numbers come from, in a line."""
    commits = dict.fromkeys([document["git_commit"], *document["step_commits"]])
    shown = ", ".join(f"`{commit[:10]}`" for commit in commits)
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return (
        f"Commit {shown}, seed {document['seed']}, {document['hardware']}, {document['date'][:10]}, "
        f"{document['seconds']:,.0f} s ({document['steps_taken_up']} steps taken up from before); {versions}. "
        f"Numbers: [{document['item']}.json]({FOLDER}/{document['item']}.json)."
    )


def _words(name: str) -> str:
    """The name of an item as a heading: "Table 1" of table_1, "Figure 3" of fig_3."""
    return name.replace("fig_", "figure_").replace("_", " ").capitalize()


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; bars in cells are escaped."""
    rule = ["---"] * len(columns)
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in [columns, rule, *lines])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
