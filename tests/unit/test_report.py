"""A result as a page: what it tells, and that nothing in it can do anything."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

from soutu.evaluation.dataset import Dataset, DatasetText
from soutu.evaluation.evaluate import Evaluation, QueryOutcomes, evaluate
from soutu.evaluation.loaders import open_dataset
from soutu.evaluation.metrics import METRICS
from soutu.evaluation.report import (
    Bar,
    Report,
    draw_bars,
    draw_curves,
    hit_rates,
    worst_queries,
    write_report,
)
from soutu.evaluation.vectors import EncodeOptions
from soutu.factory import build_encoder

HERE = Path(__file__).parents[1] / "collection"
HOSTILE = "<script>alert(1)</script>\"'&|`*\x00\u202e\ud800 猫"


@pytest.fixture(scope="module")
def judged():
    scenes = open_dataset(HERE).first(60)
    return scenes, evaluate(scenes, build_encoder("tiny", "cpu"), EncodeOptions())


def written(folder, collection, named, lang="en", differences=()):
    folder.mkdir()
    write_report(folder, Report(collection, named, differences, lang))
    return {path.name: path.read_bytes().decode() for path in folder.iterdir()}


class Page(HTMLParser):
    """Tags with their attributes; what is open must be closed in order."""

    VOID = frozenset({"meta", "img", "line", "rect", "path", "polyline"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_report_tells_figures_plots_and_settings(judged, tmp_path, lang):
    scenes, told = judged
    files = written(tmp_path / "r", scenes, {"tiny": told}, lang)
    assert set(files) == {"report.html", "report.md", *(f"plot-{n:02}.svg" for n in range(1, 5))}
    page = Page(files["report.html"])
    for one in told.outcomes:
        for metric in ("hit@1", "mAP", "nDCG@10"):
            figure = one.figures[metric]
            assert f"{figure.value:.3f}" in page.text
            assert f"({figure.low:.3f}–{figure.high:.3f})" in files["report.md"]
    assert told.settings["model"]["fingerprint"] in page.text
    assert scenes.fingerprint in page.text
    assert ("命中率" in page.text) == ("命中率" in files["report.md"]) == (lang == "zh")
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    for name in files:
        if name.endswith(".svg"):
            assert f"({name})" in files["report.md"]
            assert ET.fromstring(files[name]).tag.endswith("svg")


def test_a_page_needs_nothing_else_and_runs_nothing(judged, tmp_path):
    scenes, told = judged
    for tag, attributes in Page(written(tmp_path / "r", scenes, {"t": told})["report.html"]).tags:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"src", "href"} or value.startswith("data:image/jpeg;base64,")


def test_the_worst_queries_are_those_with_the_latest_right_picture(judged):
    scenes, told = judged
    rank = METRICS.index("rank")
    late = sorted(
        (int(row[rank]) for o in told.outcomes if o.direction == "text-to-image"
         for row in o.values if row[rank] > 1), reverse=True,
    )  # fmt: skip
    worst = worst_queries(Report(scenes, {"tiny": told}, (), "en"))
    assert [query.ranks[0][1] for query in worst] == late[:20] != []
    texts = {text.text: text for text in scenes.texts}
    for query in worst:
        right = texts[query.text].right
        assert query.right[0].id in right
        assert len(query.hits) == 3
        assert [is_right for _, is_right in query.hits] == [p.id in right for p, _ in query.hits]
        assert not query.hits[0][1], "the first was wrong"


def test_thumbnails_are_small_pictures(judged, tmp_path):
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    scenes, told = judged
    page = Page(written(tmp_path / "r", scenes, {"tiny": told})["report.html"])
    shots = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert shots
    for shot in shots:
        picture = Image.open(BytesIO(b64decode(shot.split(",")[1])))
        assert max(picture.size) <= 160
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10


def test_rates_are_counted():
    values = np.zeros((5, len(METRICS)))
    values[:, -1] = [1, 3, 3, 100, 0]
    one = QueryOutcomes(
        "text-to-image", "en", "w", ("a", "b", "c", "d", "e"), (1,) * 5, values, 500, 0
    )
    found = hit_rates(one)
    assert len(found) == 100
    assert (found[0], found[1], found[2], found[98], found[99]) == (0.2, 0.2, 0.6, 0.6, 0.8)
    assert len(hit_rates(replace(one, targets=40))) == 40
    assert hit_rates(replace(one, queries=(), values=values[:0])) == []


def drawn(svg, colour):
    """The points of each path in that colour: (x, y) from the top left."""
    paths = [
        path.get("d")
        for path in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
        if colour in path.get("style", "")
    ]
    numbers = [[float(n) for n in re.findall(r"-?[0-9.]+", path)] for path in paths]
    return [list(zip(points[::2], points[1::2], strict=True)) for points in numbers]


def test_curves_and_bars_stand_where_their_values_are():
    points, *_ = drawn(draw_curves("t", {"x": [0.0, 0.5, 1.0]}, "K"), "stroke: #2563eb")
    (x1, y1), (x2, y2), (x3, y3) = points
    assert y1 - y2 == pytest.approx(y2 - y3)
    assert y1 > y3, "higher is better"
    assert x2 - x1 > x3 - x2, "logarithmic"
    rows = [Bar("x", 0.5, 0.25, 0.75), Bar("y", 1, 1, 1)]
    found = drawn(draw_bars("t", rows), "fill: #2563eb")
    first, second = (max(x for x, _ in bar) - min(x for x, _ in bar) for bar in found)
    assert first * 2 == pytest.approx(second, rel=1e-3)


def texts(svg):
    return [text.text for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_what_does_not_fit_is_cut():
    name = "金毛寻回犬" * 20
    (text,) = [t for t in texts(draw_bars("t", [Bar(name, 0.5, 0.4, 0.6)])) if "金毛" in t]
    assert text.endswith("…")
    assert name.startswith(text[:-1])
    assert 5 <= len(text) <= 12


def test_texts_are_texts_of_the_page_and_nothing_is_read_as_a_formula():
    found = texts(draw_curves("t", {"$x^2$ <b>": [0.5, 1.0], "灰猫": [0.5, 0.9]}, "前 K 个"))
    assert {"$x^2$ <b>", "灰猫", "前 K 个"} <= {*found}


def test_equal_evaluations_give_equal_bytes(judged, tmp_path):
    scenes, told = judged
    first, second = (written(tmp_path / n, scenes, {"a": told, "b": told}) for n in "12")
    assert first == second


def test_hostile_names_stay_letters(judged, tmp_path):
    scenes, _ = judged
    picture = scenes.pictures[0]
    values = np.zeros((1, len(METRICS)))
    values[:, -1] = 2
    text = DatasetText("q", HOSTILE, HOSTILE, HOSTILE, {picture.id: 1})
    outcome = QueryOutcomes("text-to-image", HOSTILE, HOSTILE, ("q",), (1,), values, 2, 0,
                      best=((picture.id,),))  # fmt: skip
    hostile = Dataset(HOSTILE, HOSTILE, "", (picture,), (text,))
    named = {name: Evaluation((outcome,), {HOSTILE: HOSTILE}) for name in (HOSTILE, "b" + HOSTILE)}
    files = written(tmp_path / "r", hostile, named)
    page = Page(files["report.html"])
    assert not {"script", "iframe"} & {tag for tag, _ in page.tags}
    assert "<script>alert(1)</script>" in page.text
    assert "<script" not in files["report.md"]
    for name, written_text in files.items():
        assert not re.search("[\x00\u202e]", written_text)
        if name.endswith(".svg"):
            ET.fromstring(written_text)
    rows = [line for line in files["report.md"].splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_nothing_wrong_and_nothing_asked(judged, tmp_path):
    scenes, told = judged
    empty = [replace(one, queries=(), answers=(), values=one.values[:0]) for one in told.outcomes]
    files = written(tmp_path / "r", scenes, {"tiny": replace(told, outcomes=tuple(empty))})
    assert "Every query has a correct picture at rank 1." in files["report.html"]
