"""The READMEs' tables of quality, made from what was measured.

``python -m benchmarks.quality`` writes them anew, ``--check`` only says (and by its exit code)
whether they are what they should be. A table stands between ``<!-- figures: NAME -->`` and
``<!-- figures end -->``. Its figures are those of the model's card, which ``training.evaluate``
measured, and of ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.record import RESULTS

ROOT = Path(__file__).parents[1]
PAGES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}
CARD = ROOT / "src" / "soutu" / "bundles" / "tiny" / "MODEL_CARD.md"
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- figures end -->)", re.S)
_ROW = re.compile(r"^\| unseen rich scenes \| [\d,]+ \| ([\d.]+) / ([\d.]+) \| ([\d.]+) / ([\d.]+)",
                  re.M)  # fmt: skip


def model(lang: str, results: Path) -> str:
    row = _ROW.search(CARD.read_text(encoding="utf-8"))
    if not row:
        raise ValueError(f"{CARD} has no row of unseen rich scenes")
    zh_1, en_1, zh_10, en_10 = row.groups()
    header = {
        "en": "| model | text→image zh R@1 / R@10 | en R@1 / R@10 |",
        "zh": "| 模型 | 文→图 中文 R@1 / R@10 | 英文 R@1 / R@10 |",
    }
    return f"{header[lang]}\n|---|---|---|\n| `tiny` | {zh_1} / {zh_10} | {en_1} / {en_10} |\n"


METHODS = {
    "raw": {"en": "Chinese as it stands", "zh": "中文原样"},
    "lexicon, auto": {"en": "Soutu's lexicon", "zh": "搜图的词典"},
    "translated by hand": {"en": "translated by hand", "zh": "人工翻译"},
}
KINDS = {
    "word": {"en": "words", "zh": "词"},
    "phrase": {"en": "phrases", "zh": "短语"},
    "sentence": {"en": "sentences", "zh": "句子"},
}


def expansion(lang: str, results: Path) -> str:
    measured = json.loads((results / "expansion.json").read_text(encoding="utf-8"))
    written = measured["tiny-en"]["hand-written"]
    rows = [f"| | {' | '.join(kind[lang] for kind in KINDS.values())} |", "|---|---|---|---|"]
    for method, label in METHODS.items():
        rates = [f"{written[kind][method]['hit@10'][0]:.3f}" for kind in KINDS]
        rows.append(f"| {label[lang]} | {' | '.join(rates)} |")
    return "\n".join(rows) + "\n"


def photos(lang: str, results: Path) -> str:
    """Expansion on photographs: hit@10 of words, R@10 of sentences."""
    measured = json.loads((results / "photos_expansion.json").read_text(encoding="utf-8"))
    words, sentences = measured["words"], measured["zh_translated"]
    english = measured["the English originals"]["R@10"]
    cells = {
        "raw": (words["raw"]["hit@10"], sentences["raw"]["R@10"]),
        "lexicon, auto": (words["lexicon"]["hit@10"], sentences["lexicon"]["R@10"]),
        "translated by hand": (words["translated by hand"]["hit@10"], english),
    }
    kinds = KINDS["word"], KINDS["sentence"]
    rows = [f"| | {' | '.join(kind[lang] for kind in kinds)} |", "|---|---|---|"]
    rows += [
        f"| {label[lang]} | {' | '.join(_with_interval(cell) for cell in cells[method])} |"
        for method, label in METHODS.items()
    ]
    return "\n".join(rows) + "\n"


def confidence(lang: str, results: Path) -> str:
    """How far confidence can be trusted on photographs."""
    measured = json.loads((results / "photos_confidence.json").read_text(encoding="utf-8"))
    tables = measured["in force"]
    columns = {
        "words among 300": KINDS["word"],
        "sentences among 300": KINDS["sentence"],
        "among 300": {"en": "both", "zh": "合计"},
    }
    rows = [f"| | {' | '.join(name[lang] for name in columns.values())} |", "|---|---|---|---|"]
    for figure in ("AUROC", "ECE"):
        cells = (_with_interval(tables[name][figure]) for name in columns)
        rows.append(f"| {figure} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def verdicts(lang: str, results: Path) -> str:
    """What the thresholds of confidence get wrong, and how often a search is not sure."""
    photographs = json.loads((results / "photos_confidence.json").read_text(encoding="utf-8"))
    scenes = json.loads((results / "thresholds.json").read_text(encoding="utf-8"))
    columns = [
        ({"en": "`photo`, photographs", "zh": "`photo`，照片"},
         photographs["in force"]["verdicts on among 300"]),
        *((label, scenes[name]["tiny"]["all"]) for name, label in SCENES.items()),
    ]  # fmt: skip
    rows = [f"| | {' | '.join(label[lang] for label, _ in columns)} |",
            f"|{'---|' * (len(columns) + 1)}"]  # fmt: skip
    for name, label in VERDICTS.items():
        cells = " | ".join(f"{100 * figures[name]:.1f}" for _, figures in columns)
        rows.append(f"| {label[lang]} | {cells} |")
    return "\n".join(rows) + "\n"


SCENES = {
    "scenes, whole": {"en": "`tiny`, drawn scenes", "zh": "`tiny`，手绘场景"},
    "scenes, cropped": {"en": "cropped", "zh": "裁剪后"},
    "style, whole": {"en": "unseen style", "zh": "未见过的画风"},
}
VERDICTS = {
    "false nothing": {"en": "% of what is there: absent", "zh": "有答案而称没有 (%)"},
    "right and there": {"en": "% of what is there: present", "zh": "有答案且称有 (%)"},
    "false there": {"en": "% of what is not: present", "zh": "无答案而称有 (%)"},
    "absent and nothing": {"en": "% of what is not: absent", "zh": "无答案且称没有 (%)"},
    "not sure": {"en": "% of all: not sure", "zh": "全部查询中不确定 (%)"},
}


def _with_interval(figure: list[float]) -> str:
    value, low, high = figure
    return f"{value:.3f} ({low:.3f}–{high:.3f})"


TABLES: Mapping[str, Callable[[str, Path], str]] = {
    "model": model,
    "expansion": expansion,
    "photos": photos,
    "confidence": confidence,
    "verdicts": verdicts,
}


def update_tables(text: str, lang: str, results: Path = RESULTS) -> str:
    """``text`` with its tables as they should be. ValueError where one is missing or unknown."""
    names = [match[2] for match in _BLOCK.finditer(text)]
    if sorted(names) != sorted(TABLES):
        raise ValueError(f"tables {names} instead of {[*TABLES]}")
    return _BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]](lang, results)}\n{m[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for lang, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        fresh = update_tables(text, lang)
        if fresh != text:
            stale.append(page.name)
            if not check:
                page.write_text(fresh, encoding="utf-8", newline="\n")
    if stale:
        print(", ".join(stale), "is not what was measured" if check else "written anew")
    sys.exit(bool(stale) and check)


if __name__ == "__main__":
    main()
