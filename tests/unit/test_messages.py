"""Every error can be said in both languages, with the fields that it carries."""

import ast
import json
import pickle
import string
from pathlib import Path

import pytest

import soutu.errors
import soutu.server.exceptions  # its refusals are errors too
from soutu.errors import BadImage, MissingIndex, SoutuError
from soutu.i18n import load_messages

SOURCE = Path(soutu.errors.__file__).parent
FORMATTER = string.Formatter()


def fields_of(text: str) -> set[str]:
    return {name.split("!")[0] for _, name, _, _ in FORMATTER.parse(text) if name is not None}


def raised() -> list[tuple[str, str, set[str] | None]]:
    """(place, code, fields) of every error raised and every message used in the source."""
    kinds = {kind.__name__ for kind in _all_kinds(SoutuError)} | {"tr", "format_message"}
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            first = node.args[0] if node.args else None
            if node.func.id in kinds and isinstance(first, ast.Constant):
                named = {k.arg for k in node.keywords if k.arg}
                complete = all(k.arg for k in node.keywords)
                place = f"{path.name}:{node.lineno}"
                found.append((place, str(first.value), named if complete else None))
    return found


def _all_kinds(kind):
    return {kind}.union(*(_all_kinds(k) for k in kind.__subclasses__()))


def test_codes_are_found_at_all():
    assert len(raised()) > 40


def test_every_code_has_a_wording_with_just_its_fields():
    for place, code, fields in raised():
        assert code in load_messages(), f"{place} says {code}, which has no wording"
        if fields is not None:
            wanted = fields_of(load_messages()[code]["en"]) | fields_of(load_messages()[code]["zh"])
            assert wanted <= fields, f"{place}: {code} lacks {wanted - fields}"


def test_no_wording_is_left_over():
    files = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.j2")]
    source = "\n".join(path.read_text("utf-8") for path in files)
    for code in load_messages():
        assert f'"{code}"' in source, f"nothing uses {code}"


@pytest.mark.parametrize("code", sorted(load_messages()))
def test_both_languages_name_the_same_things(code):
    both = load_messages()[code]
    assert set(both) == {"en", "zh"}
    assert fields_of(both["en"]) == fields_of(both["zh"])
    assert any(ord(c) > 0x3000 for c in both["zh"])


def test_parts_do_not_overwrite_each_other():
    seen: dict[str, str] = {}
    for part in (SOURCE / "messages").iterdir():
        for code in json.loads(part.read_text("utf-8")):
            assert code not in seen, f"{code} is in {part.name} and {seen[code]}"
            seen[code] = part.name


def test_an_error_speaks_english_by_default_and_survives_pickling():
    error = MissingIndex("index-missing", folder="/photos")
    assert "soutu index /photos" in str(error)
    assert "索引" in error.message("zh")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MissingIndex
    assert (again.code, again.fields) == (error.code, error.fields)


def test_exit_codes_follow_the_tree():
    assert BadImage.exit_code == 2
    tree = [k for k in SoutuError.__subclasses__() if k.__module__ == "soutu.errors"]
    assert {k.__name__: k.exit_code for k in tree} == {
        "BadInput": 2, "Missing": 3, "ModelMismatch": 4, "IndexCorrupt": 5,
        "RemoteUnavailable": 6,
    }  # fmt: skip
