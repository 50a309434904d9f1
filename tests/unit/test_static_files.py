"""The page's files: their weight, their colours, and that they need nothing from elsewhere."""

import re
from pathlib import Path

import pytest

from soutu.server import routes
from soutu.server.middleware import PAGE_POLICY
from soutu.server.routes import MEDIA_TYPES, page_files

STATIC = Path(__file__).parents[2] / "src" / "soutu" / "server" / "static"
CSS = (STATIC / "app.css").read_text("utf-8")


def colours():
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", CSS)
    return {name: pair for name, *pair in found}


def luminance(colour):
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_measured_as_it_should():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("text", "bg"), ("text", "raised"), ("dim", "bg"), ("dim", "raised"), ("dim", "sunk"),
        ("accent", "bg"), ("accent", "raised"), ("accent", "sunk"), ("on-accent", "accent"),
        ("on-soft", "soft"), ("warn", "bg"), ("bad", "raised"), ("bad", "bg"),
    ],
)  # fmt: skip
def test_text_can_be_read_in_both_themes(text, ground, theme):
    known = colours()
    assert contrast(known[text][theme], known[ground][theme]) >= 4.5


def test_the_whole_page_weighs_at_most_80_kb():
    assert sum(len(file.data) for file in page_files().values()) <= 80_000
    assert {"index.html", "app.css", "main.js", "icon.svg"} <= set(page_files())


def test_comments_stay_at_home_and_code_does_not():
    source = (
        "/** Two\n * lines. */\n  // one\n\n  const a = 1; // stays\n/* c */\n"
        "  b /* d */ = 2 * 3;\n/* e\n*/\n.f { color: red } /* g */\n"
    )
    assert routes._strip_comments(source) == (
        "const a = 1; // stays\nb /* d */ = 2 * 3;\n.f { color: red } /* g */\n"
    )
    for path in STATIC.glob("*.js"):  # no comment hides code behind it on its last line
        assert not re.search(r"^\s*(/\*|\*).*\*/ *\S", path.read_text("utf-8"), re.M), path.name


def test_every_file_is_of_a_kind_that_is_served_and_is_used():
    used = "".join(path.read_text("utf-8") for path in STATIC.iterdir())
    for path in STATIC.iterdir():
        assert path.suffix[1:] in MEDIA_TYPES
        assert path.name == "index.html" or path.name in used


def test_nothing_comes_from_elsewhere_and_nothing_is_markup():
    for path in STATIC.iterdir():
        text = path.read_text("utf-8")
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text))
        assert addresses <= {"http://www.w3.org"}, path.name  # the name of SVG
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, path.name
    html = (STATIC / "index.html").read_text("utf-8")
    assert " style=" not in html
    assert "<style" not in html
    assert re.findall(r"<script[^>]*>([^<]*)", html) == [""]
    assert "unsafe" not in PAGE_POLICY


def test_every_module_is_loaded_at_once():
    """Else the browser would find out about each only once another is there."""
    html = (STATIC / "index.html").read_text("utf-8")
    for path in STATIC.glob("*.js"):
        assert f"/static/{path.name}" in html


def test_both_languages_say_everything():
    text = (STATIC / "i18n.js").read_text("utf-8")
    names = re.findall(r"^  (\w+): \[", text, re.M)
    assert len(names) > 60
    used = "".join(path.read_text("utf-8") for path in STATIC.iterdir())
    for name in names:
        assert f'"{name}"' in used, f"nothing says {name}"
    for line in re.findall(r"^  \w+: \[(\".*\")\],$", text, re.M):
        english, chinese = re.fullmatch(r'"((?:[^"\\]|\\.)*)", "((?:[^"\\]|\\.)*)"', line).groups()
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese))
