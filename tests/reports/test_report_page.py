import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

pytest.importorskip("matplotlib")

from support.results import made_comparison, made_result

from lifelong.offline.evaluation.compare import Comparison
from lifelong.offline.evaluation.results import Estimate, Result
from lifelong.offline.reports import figures
from lifelong.offline.reports.comparison import write_comparison
from lifelong.offline.reports.page import Section
from lifelong.offline.reports.tables import Table

VOID = {"meta", "link", "br", "img", "hr"}
EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags, attributes and texts of a page; fails on tags that do not close."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.source = path.read_text()
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, name, value) for name, value in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, name, value) for name, value in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def values(self, attribute):
        return [value for _, name, value in self.attributes if name == attribute]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    results = [made_result(), made_result("counts", title="Target counts", auc=0.8)]
    write_comparison(
        out,
        made_comparison().model_copy(update={"results": results}),
        lifelong="hpmn",
        title="A report",
        sections=[Section("Mine", ["Own words."], [Table(["a", "b"], [["x", 1]])], code="output 1")],
        commands=["lifelong prepare completejourney --out data", "lifelong train data --model hpmn --out hpmn"],
    )
    return out


def with_results(*results: Result) -> Comparison:
    """The small comparison with other results in it."""
    return made_comparison().model_copy(update={"results": results})


@pytest.fixture(scope="module")
def page(folder):
    return Page(folder / "index.html")


def test_the_page_needs_nothing_from_outside(page):
    assert "http://" not in page.source
    assert "https://" not in page.source
    assert "@import" not in page.source
    assert not {"iframe", "img", "object"} & set(page.tags)
    assert page.values("src") == []
    assert {value for value in page.values("href") if not value.startswith("#")} == {"data:,"}


def test_the_policy_lets_only_the_script_of_the_page_run(page):
    script = re.search(r"<script>(.*?)</script>", page.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; ")
    assert page.tags.count("script") == 1


def test_the_page_says_what_was_asked_and_what_the_numbers_are(page, tmp_path):
    assert "Targets 100 of 8 users, 50 positive Negatives popularity, 1 per positive" in page.text
    assert "Numbers are scores: negatives were sampled" in page.text
    logged = Page(write_comparison(tmp_path, with_results(made_result(kind="probability")), lifelong="hpmn"))
    assert "Negatives none Numbers are probabilities" in logged.text


def test_the_page_says_who_is_left_out_of_gauc(page):
    assert "GAUC leaves out 2 of 8 users (25.0%) with targets that are all positive or all negative" in page.text


def test_the_page_has_exact_commands_versions_and_settings(page):
    assert "lifelong prepare completejourney --out data lifelong train data --model hpmn --out hpmn" in page.text
    assert "python 3.11.0" in page.text
    assert "data hash 0123abcd" in page.text
    assert "Settings of HPMN" in page.text
    assert '"seed": 0' in page.text


def test_figures_have_alt_text_and_captions(page):
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert any(label.startswith("AUC of each model. ") for label in labels)
    assert page.tags.count("svg") == page.tags.count("figcaption") == len(labels) == 2


def test_references_inside_figures_lead_somewhere(page):
    ids = set(page.values("id"))
    targets = [value[1:] for value in page.values("href") if value.startswith("#")]
    clips = re.findall(r"url\(#([^)]+)\)", page.source)
    assert targets
    assert clips
    assert {*targets, *clips} <= ids


def test_the_page_follows_light_dark_and_narrow_screens(page):
    assert "@media (prefers-color-scheme: dark)" in page.source
    assert "@media (max-width: 40rem)" in page.source
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes


def test_tables_and_records_lie_beside_the_page(folder):
    names = {path.name for path in (folder / "tables").iterdir()}
    assert {"mine.md", "mine.csv", "mine.tex", "main.csv", "history-length.tex"} <= names
    assert (folder / "tables" / "mine.csv").read_text() == "a,b\nx,1\n"
    records = json.loads((folder / "results.json").read_text())
    assert [Result.model_validate(record).model for record in records] == ["hpmn", "counts"]


def test_texts_from_outside_are_escaped_everywhere(tmp_path):
    result = made_result(title=EVIL).model_copy(
        update={"dataset": EVIL, "config": {EVIL: EVIL}, "versions": {EVIL: EVIL}, "artifact_id": EVIL}
    )
    section = Section(EVIL, [EVIL], [Table([EVIL, EVIL], [[EVIL, EVIL]], EVIL)], code=EVIL)
    comparison = with_results(result)
    rows = [row.model_copy(update={"title": EVIL}) for row in comparison.rows]
    path = write_comparison(
        tmp_path,
        comparison.model_copy(update={"rows": rows, "notes": [EVIL]}),
        lifelong="hpmn",
        title=EVIL,
        sections=[section],
        commands=[EVIL],
    )
    page = Page(path)
    assert page.tags.count("script") == 1
    assert EVIL not in page.source
    assert page.text.count(EVIL) > 10


def test_a_quote_cannot_leave_an_attribute(tmp_path):
    page = Page(write_comparison(tmp_path, with_results(made_result(title='x" onload="y')), lifelong="hpmn"))
    assert page.values("onload") == []


def test_of_several_seeds_what_is_of_the_first_says_so(tmp_path):
    results = [made_result(auc=0.7), made_result(auc=0.6), made_result("dnn", title="DNN", auc=0.65)]
    path = write_comparison(tmp_path, with_results(*results), lifelong="hpmn")
    text = Page(path).text
    assert "These figures are of each model's first seed, not means over seeds." in text
    assert len(json.loads((tmp_path / "results.json").read_text())) == 3


def test_a_report_can_be_written_where_no_auc_is_defined(tmp_path):
    undefined = Estimate(value=None, reason="all labels are positive")
    result = made_result()
    result = result.model_copy(update={"metrics": {**result.metrics, "auc": undefined}})
    comparison = with_results(result)
    rows = [row.model_copy(update={"metrics": result.metrics}) for row in comparison.rows]
    page = Page(write_comparison(tmp_path, comparison.model_copy(update={"rows": rows}), lifelong="hpmn"))
    assert "all labels are positive" in page.text


def test_own_figures_stand_in_their_section(tmp_path):
    figure = figures.learning_curves({"Alone": [(1, 0.6)]}, tmp_path / "own")
    sections = [Section("Mine", figures=[replace(figure, title="My figure")])]
    page = Page(write_comparison(tmp_path, made_comparison(), lifelong="hpmn", sections=sections))
    assert "My figure." in page.text
