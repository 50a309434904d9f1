"""Where pictures go, over shapes that nobody chose (``layout.js``, run where it runs)."""

import random
from itertools import pairwise

import pytest

LAID = """async ([shapes, width]) => {
  const { layOut, rowHeight, rowAt, adjacent } = await import('/static/layout.js');
  const hits = shapes.map(([w, h]) => ({ width: w, height: h }));
  const found = layOut(hits, { width, gap: 10, foot: 28 });
  const middles = found.rows.map((row) => rowAt(found.rows, row.y + row.height / 2));
  const down = hits.map((_, at) => adjacent(found, at, 1));
  return { ...found, target: rowHeight(width), middles, down };
}"""


@pytest.fixture(scope="module")
def page(browser, site):
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(site)
    yield opened
    context.close()


def shapes(seed, count):
    draw = random.Random(seed)
    kinds = [(640, 640), (4000, 3000), (3000, 4000), (1920, 1080), (9000, 400), (40, 4000), (0, 0)]
    return [draw.choice(kinds) for _ in range(count)]


@pytest.mark.parametrize("width", [320, 366, 1229, 2524, 3800])
@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_rows_fill_the_width_and_nothing_overlaps(page, width, count):
    found = page.evaluate(LAID, [shapes(width + count, count), width])
    boxes, rows = found["boxes"], found["rows"]
    assert len(boxes) == count
    assert [row["start"] for row in rows] == [0, *(row["end"] for row in rows[:-1])]
    assert rows[-1]["end"] == count
    for row, below in zip(rows, [*rows[1:], None], strict=True):
        mine = boxes[row["start"] : row["end"]]
        assert {(box["y"], box["height"]) for box in mine} == {(row["y"], row["height"])}
        for left, right in pairwise(mine):
            assert right["x"] - (left["x"] + left["width"]) in (9, 10, 11)
        end = mine[-1]["x"] + mine[-1]["width"]
        assert end <= width
        if below:
            assert end == width
            assert below["y"] == row["y"] + row["height"] + 10
            assert 0.35 < (row["height"] - 28) / found["target"] < 2
    assert found["height"] == rows[-1]["y"] + rows[-1]["height"]


def test_what_is_at_a_place_and_what_is_below(page):
    found = page.evaluate(LAID, [shapes(1, 200), 1229])
    rows = found["rows"]
    assert found["middles"] == list(range(len(rows)))
    for at, below in enumerate(found["down"]):
        mine = next(n for n, row in enumerate(rows) if at < row["end"])
        if mine + 1 == len(rows):
            assert below == -1
        else:
            assert rows[mine + 1]["start"] <= below < rows[mine + 1]["end"]


def test_squares_stand_in_columns(page):
    boxes = page.evaluate(LAID, [[(640, 640)] * 50, 1229])["boxes"]
    assert [box["x"] for box in boxes[:6]] == [box["x"] for box in boxes[6:12]]
    assert [box["x"] for box in boxes[48:]] == [box["x"] for box in boxes[:2]]
