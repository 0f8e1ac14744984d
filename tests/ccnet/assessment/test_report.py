"""What people read: the verdict, Markdown and the page, for harmless names and for hostile ones."""

import copy
import re
import threading
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from ccnet import CcnetError
from ccnet.assessment import assess, html, markdown
from ccnet.assessment.wording import duration, percent, points
from ccnet.checkpoint import Checkpoint
from tests.ccnet.assessment.synthetic import CLASSES, Scripted, checkpoint, pictures, quick

HOSTILE = ('<script>alert("1")</script>', "a | b `c` *d* [e](http://f)", '"><img src=x onerror=alert(1)>', "$\\frac{1}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("ccnet"), sequences=True)


@pytest.fixture(scope="module")
def document(model: Checkpoint) -> dict[str, Any]:
    options = quick(max_shifts=(2, 4), shift_samples=20)
    return assess(model, pictures(60), options, passes=Scripted())


@pytest.fixture(scope="module")
def page(document: dict[str, Any]) -> str:
    return html(document)


@pytest.fixture(scope="module")
def hostile(model: Checkpoint) -> dict[str, Any]:
    classes = HOSTILE + CLASSES[len(HOSTILE) :]
    renamed = replace(model, name='<b>"net"</b> | `x`', labels=classes)
    images = replace(pictures(40), name="<i>set</i>", classes=classes)
    return assess(renamed, images, quick(), passes=Scripted(certainty=0.5))


class Page(HTMLParser):
    """Tags with their attributes, in order; and what stands open at the end."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def assert_self_contained(text: str) -> Page:
    page = Page(text)
    assert page.open == []
    names = [tag for tag, _ in page.tags]
    assert not {"script", "img", "link", "iframe", "object", "style-x"} & set(names)
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), "the page asks nobody for anything"
    assert not re.search(r"url\((?!#)|@import", text)
    return page


def test_the_page_stands_alone_and_can_be_read_aloud(page) -> None:
    found = assert_self_contained(page)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("h1") == 1
    assert tags.count("svg") == 4 == tags.count("figcaption")
    for tag, attributes in found.tags:
        if tag == "figure":
            assert attributes["role"] == "img"
            assert len(attributes["aria-label"] or "") > 40
    assert tags.count("caption") == tags.count("table") - 1  # the last table has the heading above it
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_reference_inside_a_plot_leads_somewhere(page) -> None:
    targets = set(re.findall(r'\bid="([^"]+)"', page))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= targets


def test_the_page_and_its_plots_are_the_same_each_time_and_in_threads(document, page) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(html(document))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [page] * 2


def test_hostile_names_are_text_on_the_page(hostile) -> None:
    text = html(hostile)
    assert_self_contained(text)
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in text
    assert "&lt;b&gt;&#34;net&#34;&lt;/b&gt;" in text


def test_hostile_names_are_text_in_markdown(hostile) -> None:
    text = markdown(hostile)
    assert "<script" not in text.replace("\\<", "")
    assert "\\<script\\>" in text
    assert "a \\| b \\`c\\` \\*d\\* \\[e\\](http\\://f)" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(cells) == 1, "every row has as many cells as the head"


def test_markdown_and_page_hold_the_numbers_of_the_document(document, page) -> None:
    texts = markdown(document), page
    for row in document["rows"]:
        shown = percent(row["mean_of_logits"]["accuracy"]["mean"], 2)
        assert all(shown in text for text in texts)
    for sentence in document["verdict"]:
        assert sentence in texts[1].replace("&#39;", "'")


def test_colours_follow_the_page(page) -> None:
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert "currentColor" in drawing
        assert "var(--first)" in drawing
        assert not re.search(r"#0[1-4]0[1-4]0[1-4]", drawing)
    assert "prefers-color-scheme: dark" in page


def test_plots_without_matplotlib_say_what_to_install(document, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(CcnetError, match=r"pip install 'ccnet\[figures\]'"):
        html(document)
    assert markdown(document)


def test_reports_without_views_shifts_or_several_sizes_can_be_read(model) -> None:
    for options in (quick(sizes=(1,), draws=1, views=False), quick(limit=1)):
        document = assess(model, pictures(30), options, passes=Scripted())
        assert_self_contained(html(document))
        assert markdown(document).startswith("# tiny on pictures\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"difference": 0.0062, "interval": [0.0031, 0.0093]}, "gains 0.62 points (+0.31 to +0.93)"),
        ({"difference": -0.005, "interval": [-0.008, -0.002]}, "loses 0.50 points (−0.80 to −0.20)"),
        ({"difference": 0.001, "interval": [-0.002, 0.004]}, "gains nothing that these images tell from chance"),
    ],
)
def test_the_verdict_says_what_the_interval_allows(document, change, words) -> None:
    from ccnet.assessment.verdict import verdict

    changed = [
        one | {"accuracy": change} if one["of"] == {"kind": "sequences", "size": 4} else one
        for one in document["comparisons"]
    ]
    sentences = verdict(document | {"comparisons": changed})
    assert any(words in sentence for sentence in sentences)


@pytest.mark.parametrize("images", [1, 19])
def test_of_too_few_images_no_difference_is_judged_and_a_note_says_so(model, images) -> None:
    document = assess(model, pictures(images), quick(), passes=Scripted(certainty=0))
    said = " ".join(document["verdict"])
    assert not re.search(r"gain|lose|ahead|tell ensemble", said)
    assert any(note.startswith("Nothing is said of differences: 20 images") for note in document["notes"])
    (table,) = re.findall(r"## Differences.*?\n\n((?:\|.*\n)+)", markdown(document))
    assert all(line.split(" | ")[2] == "-" for line in table.splitlines()[2:])
    assert_self_contained(html(document))


def calibration_sentence(document: dict[str, Any], confidence: float, accuracy: float, ece: float, after: float) -> str:
    """What the verdict says of these numbers."""
    from ccnet.assessment.verdict import main_row, verdict

    changed = copy.deepcopy(document)
    scores = main_row(changed)["mean_of_logits"]
    scores["confidence"]["mean"], scores["accuracy"]["mean"] = confidence, accuracy
    scores["ece"] |= {"mean": ece, "by_chance": 0.006, "by_chance_95": 0.01}
    scores["scaled"]["temperature"], scores["scaled"]["ece"]["mean"] = 1.1, after
    return next(sentence for sentence in verdict(changed) if sentence.startswith("Probabilities"))


@pytest.mark.parametrize(
    ("confidence", "accuracy", "ece", "words"),
    [
        (0.9, 0.8, 0.11, "are over-confident: 90.0% on average where 80.0% are right"),
        (0.7, 0.8, 0.11, "are under-confident"),
        (0.8, 0.802, 0.143, "are too high on some images and too low on others"),
        (0.75, 0.8, 0.143, "are too high on some images and too low on others"),
    ],
)
def test_a_direction_is_named_only_where_the_mean_gap_is_most_of_the_error(
    document, confidence, accuracy, ece, words
) -> None:
    sentence = calibration_sentence(document, confidence, accuracy, ece, 0.02)
    assert words in sentence
    assert f"calibration error {percent(ece)}, where chance alone would give 0.6%." in sentence
    assert sentence.endswith("With logits divided by 1.10 it is 2.0%.")


def test_a_temperature_that_makes_it_worse_is_said_not_to_mend_it(document) -> None:
    sentence = calibration_sentence(document, 0.8, 0.802, 0.143, 0.16)
    assert sentence.endswith("A temperature does not mend that: with logits divided by 1.10 it is 16.0%.")


def test_words_for_numbers() -> None:
    assert [points(0.0062), points(-0.001), points(0.000001)] == ["+0.62", "−0.10", "0.00"]
    assert [percent(None), percent(0.91234, 2)] == ["-", "91.23%"]
    assert [duration(s) for s in (0.0123, 1.26, 125, 6009)] == ["12.3 ms", "1.3 s", "2 min 5 s", "100 min"]
    assert [duration(s) for s in (0.9994, 0.9996, 59.96, 119.6, 599.6)] == [
        "999 ms",
        "1.0 s",
        "1 min 0 s",
        "2 min 0 s",
        "10 min",
    ]


@pytest.mark.parametrize(
    ("name", "shown"), [("$x$", r"\$x\$"), ("www.a.org", r"www\.a.org"), ("WWW.a", r"WWW\.a"), ("awww.", "awww.")]
)
def test_what_github_would_make_a_formula_or_a_link_of_is_text(model, name, shown) -> None:
    document = assess(replace(model, name=name), pictures(20), quick(), passes=Scripted())
    assert markdown(document).startswith(f"# {shown} on pictures\n")
