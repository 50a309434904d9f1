"""Read judged datasets in the layouts they come in.

queries           what ``training.collections`` writes, and the simplest to write by hand
    queries.jsonl   {"id": "zh-word-1", "text": "钥匙", "relevant": ["images/1.jpg"],
                    "lang": "zh", "kind": "word"}; "lang" and "kind" may be left out
qrels             plain judgements beside plain queries, as CSV or as JSON lines
    queries.csv     query_id,text[,lang,kind]               or queries.jsonl with these names
    qrels.csv       query_id,image_path[,relevance]         or qrels.jsonl; "relevance" is 0 (judged
                    and wrong), 1 (where it is left out) or more
karpathy          Karpathy's splits of COCO, Flickr30k and Flickr8k, one JSON file
    dataset_coco.json   {"images": [{"filepath": "val2014", "filename": "COCO_val2014_….jpg",
                        "split": "test", "imgid": 0, "sentences": [{"raw": "…", "sentid": 1}]}]};
                        pictures at filepath/filename, filename, or either below images/
chinese-clip      what Chinese-CLIP gives MUGE, Flickr30k-CN and COCO-CN
    test_imgs.tsv       id TAB picture in base64 (either alphabet)
    test_texts.jsonl    {"text_id": 8428, "text": "高级感托特包斜挎", "image_ids": [1076345]}
crossmodal-3600   as it is published; pictures at images/KEY.jpg or beside
    captions.jsonl  {"image/key": "0001", "zh": {"caption": ["…"]}, "en": {"caption": ["…"]}, …}
webdataset        retrieval tars as CLIP_benchmark reads them, in folders by split or without
    test/0.tar …    KEY.jpg (jpeg, png, webp) beside KEY.txt, a caption on each line
    test/nshards.txt    how many tars there are (may be missing)

Of queries and qrels all pictures below the folder are searched, judged or not. What is wrong is
told by file and line.
"""

from __future__ import annotations

import base64
import csv
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from soutu.errors import BadInput, SoutuError
from soutu.evaluation.dataset import Dataset, DatasetImage, DatasetText
from soutu.images.scan import check_root, walk
from soutu.text import EN, ZH, language

TEST = "test"
QUERY, CAPTION = "query", "caption"  # kinds of texts
QUERIES_FILE = "queries.jsonl"
GRADE_FORM = '"relevance": 0, 1, 2, …'
KARPATHY_HEAD_BYTES = 200  # in which a file of Karpathy's says "images" or "dataset"
IMAGES_SUFFIX, TEXTS_SUFFIX = "_imgs.tsv", "_texts.jsonl"
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
BASE64_ALPHABET = bytes.maketrans(b"+/", b"-_")
CROSSMODAL_FILE, CROSSMODAL_KEY = "captions.jsonl", "image/key"
TAR_SUFFIXES = ("webp", "png", "jpg", "jpeg")
MAX_CAPTION_BYTES = 1_000_000  # of one picture in a tar

Loaded: TypeAlias = "tuple[str, Iterable[DatasetImage], Iterable[DatasetText]]"
"""The split ("" where there is none), pictures and texts."""


@dataclass(frozen=True)
class Layout:
    """``fits`` says whether a folder looks like it; ``load(folder, split, lang)`` reads it."""

    name: str
    fits: Callable[[Path], bool]
    load: Callable[[Path, str | None, str | None], Loaded]


def open_dataset(
    folder: Path, *, layout: str | None = None, split: str | None = None, lang: str | None = None
) -> Dataset:
    """Open the dataset in ``folder``; pictures are opened only when they are read.

    Parameters
    ----------
    layout
        A name of ``LAYOUTS``; None for the one that the folder looks like.
    split
        None is "test" where there are splits, or the only one.
    lang
        None for all languages (of Crossmodal-3600's 36, Chinese and English).

    Raises
    ------
    BadInput
        For a folder of no known layout, a split or language that is not there, a malformed line,
        and a dataset in which nothing is judged.
    """
    check_root(folder)
    known = ", ".join(LAYOUTS)
    if layout is not None and layout not in LAYOUTS:
        raise BadInput("eval-layout-name", name=layout, known=known)
    candidates = [LAYOUTS[layout]] if layout else [x for x in LAYOUTS.values() if x.fits(folder)]
    if not candidates:
        raise BadInput("eval-layout-none", folder=folder, known=known)
    name = candidates[0].name
    split, pictures, texts = candidates[0].load(folder, split, lang)
    dataset = Dataset(folder.resolve().name, name, split, tuple(pictures), tuple(texts))
    if lang is not None and dataset.texts:
        dataset = dataset.only(lang)
    if not any(text.right for text in dataset.texts):
        raise BadInput("eval-unjudged", folder=folder, layout=name, split=split)
    return dataset


# --- queries and qrels


def _fits_queries(folder: Path) -> bool:
    return (folder / QUERIES_FILE).is_file()


def _load_queries(folder: Path, split: str | None, lang: str | None) -> Loaded:
    _refuse_split(folder, split)
    pictures = _pictures_below(folder)
    texts, ids = [], _UniqueIds()
    for record in _json_lines(folder / QUERIES_FILE):
        id, text = ids.add(record.text("id"), record.place), record.text("text")
        right = dict.fromkeys(record.ids("relevant"), 1)
        _require_pictures(right, pictures, record.place)
        spoken = record.text("lang", _language_of(text))
        texts.append(DatasetText(id, text, spoken, record.text("kind", QUERY), right))
    return "", pictures.values(), texts


def _fits_qrels(folder: Path) -> bool:
    return any((folder / f"qrels.{ending}").is_file() for ending in ("csv", "jsonl"))


def _load_qrels(folder: Path, split: str | None, lang: str | None) -> Loaded:
    _refuse_split(folder, split)
    pictures = _pictures_below(folder)
    texts: dict[str, DatasetText] = {}
    right: dict[str, dict[str, int]] = {}
    ids, pairs = _UniqueIds(), _UniqueIds()
    for record in _csv_or_json(folder / "queries", ("query_id", "text"), ("lang", "kind")):
        id, text = ids.add(record.text("query_id"), record.place), record.text("text")
        spoken, kind = record.text("lang", _language_of(text)), record.text("kind", QUERY)
        right[id] = {}
        texts[id] = DatasetText(id, text, spoken, kind, right[id])
    for record in _csv_or_json(folder / "qrels", ("query_id", "image_path"), ("relevance",)):
        id, path = record.text("query_id"), record.text("image_path")
        if id not in right:
            raise BadInput("eval-no-query", place=record.place, id=id)
        _require_pictures([path], pictures, record.place)
        pairs.add(f"{id} {path}", record.place)
        grade = record.text("relevance", "1")
        if not (grade.isascii() and grade.isdigit() and len(grade) < 4):
            raise BadInput("eval-field", place=record.place, field="relevance", form=GRADE_FORM)
        if int(grade):
            right[id][path] = int(grade)
    return "", pictures.values(), texts.values()


def _pictures_below(folder: Path) -> dict[str, DatasetImage]:
    """Find all pictures below ``folder``, judged or not, by path.

    Raises BadImage for one that cannot be read: without it the figures would be of another dataset.
    """
    pictures = {}
    for file in walk(folder):
        if isinstance(file, SoutuError):
            raise file
        pictures[file.path] = _existing_file(folder / file.path, file.path, str(folder))
    return pictures


# --- karpathy


def _find_karpathy(folder: Path) -> Path | None:
    """Find the first JSON file that begins as these do."""
    for file in sorted(folder.glob("*.json")):
        try:
            with file.open("rb") as stream:
                head = stream.read(KARPATHY_HEAD_BYTES)
        except OSError:
            continue
        if b'"images"' in head or b'"dataset"' in head:
            return file
    return None


def _load_karpathy(folder: Path, split: str | None, lang: str | None) -> Loaded:
    file = _find_karpathy(folder)
    if file is None:
        raise BadInput("eval-layout-none", folder=folder, known="karpathy")

    def without_tokens(value: dict[str, object]) -> dict[str, object]:
        value.pop("tokens", None)  # COCO's file has 8 million words in it that were split already
        return value

    try:
        loaded = json.loads(file.read_text("utf-8-sig"), object_hook=without_tokens)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput("eval-json", place=file, error=error) from error
    images = _Record.of(str(file), loaded if isinstance(loaded, dict) else {}).records(
        "images", ": "
    )
    split = _choose_split(folder, split, {image.text("split") for image in images})
    pictures, texts, ids = [], [], _UniqueIds()
    for image in images:
        if image.fields["split"] != split:
            continue
        name = Path(image.text("filename"))
        path = Path(image.text("filepath", ".")) / name
        paths = [base / part for base in (folder, folder / "images") for part in (path, name)]
        existing = next((path for path in paths if path.is_file()), paths[0])
        id = path.as_posix()
        pictures.append(_existing_file(existing, id, image.place))
        for sentence in image.records("sentences"):
            number = ids.add(sentence.text("sentid"), sentence.place)
            text = " ".join(sentence.text("raw").split())
            texts.append(DatasetText(number, text, EN, CAPTION, {id: 1}))
    return split, pictures, texts


# --- chinese-clip


def _chinese_clip_splits(folder: Path) -> set[str]:
    names = {path.name.removesuffix(IMAGES_SUFFIX) for path in folder.glob(f"*{IMAGES_SUFFIX}")}
    return {name for name in names if (folder / f"{name}{TEXTS_SUFFIX}").is_file()}


def _load_chinese_clip(folder: Path, split: str | None, lang: str | None) -> Loaded:
    split = _choose_split(folder, split, _chinese_clip_splits(folder))
    pictures = {
        picture.id: picture for picture in _tsv_pictures(folder / f"{split}{IMAGES_SUFFIX}")
    }
    texts, ids = [], _UniqueIds()
    for record in _json_lines(folder / f"{split}{TEXTS_SUFFIX}"):
        id = ids.add(record.text("text_id"), record.place)
        right = dict.fromkeys(record.ids("image_ids"), 1)
        _require_pictures(right, pictures, record.place)
        texts.append(DatasetText(id, record.text("text"), ZH, CAPTION, right))
    return split, pictures.values(), texts


def _tsv_pictures(file: Path) -> Iterator[DatasetImage]:
    """Find where each picture's base64 lies in the file; nothing of it is kept."""
    ids, start = _UniqueIds(), 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                place, cells = f"{file}:{number}", line.rstrip(b"\r\n").split(b"\t")
                if line.strip():
                    if len(cells) != 2:
                        counts = {"found": len(cells), "expected": 2}
                        raise BadInput(
                            "eval-columns", place=place, columns="id TAB base64", **counts
                        )
                    name, data = cells[0].decode("utf-8", "replace").strip(), cells[1].strip()
                    if not name or len(data) % 4 or not BASE64.fullmatch(data):
                        raise BadInput("eval-base64", place=place, id=name)
                    offset = start + len(cells[0]) + 1 + cells[1].index(data)
                    read = partial(_read_base64, file, offset, len(data))
                    yield DatasetImage(ids.add(name, place), place, len(data) * 3 // 4, read)
                start += len(line)
    except OSError as error:
        raise _unreadable(file, error) from error


def _read_base64(file: Path, start: int, length: int) -> bytes:
    return base64.urlsafe_b64decode(_read_part(file, start, length).translate(BASE64_ALPHABET))


# --- crossmodal-3600


def _fits_crossmodal(folder: Path) -> bool:
    """Other datasets may call a file so, too: the first line must have the key."""
    try:
        with (folder / CROSSMODAL_FILE).open("rb") as stream:
            return f'"{CROSSMODAL_KEY}"'.encode() in stream.readline()
    except OSError:
        return False


def _load_crossmodal(folder: Path, split: str | None, lang: str | None) -> Loaded:
    _refuse_split(folder, split)
    root = folder / "images" if (folder / "images").is_dir() else folder
    pictures, texts, keys = [], [], _UniqueIds()
    for record in _json_lines(folder / CROSSMODAL_FILE):
        key = keys.add(record.text(CROSSMODAL_KEY), record.place)
        pictures.append(_existing_file(root / f"{key}.jpg", key, record.place))
        for spoken in (lang,) if lang else (ZH, EN):
            if spoken not in record.fields:
                continue  # a picture may lack a language
            value = record.fields[spoken]
            captions = value.get("caption") if isinstance(value, dict) else None
            if not isinstance(captions, list):
                form = f'"{spoken}": {{"caption": ["…"]}}'
                raise BadInput("eval-field", place=record.place, field=spoken, form=form)
            for number, caption in enumerate(captions):
                text = _Record(record.place, {"caption": caption}).text("caption")
                id = f"{key}-{spoken}-{number}"
                texts.append(DatasetText(id, text, spoken, CAPTION, {key: 1}))
    return "", pictures, texts


# --- webdataset


def _webdataset_splits(folder: Path) -> set[str]:
    return {tar.parent.name for tar in folder.glob("*/*.tar")}


def _fits_webdataset(folder: Path) -> bool:
    return any(folder.glob("*.tar")) or bool(_webdataset_splits(folder))


def _load_webdataset(folder: Path, split: str | None, lang: str | None) -> Loaded:
    if any(folder.glob("*.tar")):
        _refuse_split(folder, split)
        split = ""
    else:
        split = _choose_split(folder, split, _webdataset_splits(folder))
    pictures, captions, ids = [], list[tuple[str, str, str]](), _UniqueIds()
    for tar in _list_shards(folder / split):
        for picture, lines in _tar_pairs(tar):
            ids.add(picture.id, picture.path)
            pictures.append(picture)
            captions += [(f"{picture.id}-{n}", text, picture.id) for n, text in enumerate(lines)]
    # Such a dataset is of one language; a caption without any letters of it is no other.
    counts = Counter(_language_of(text) for _, text, _ in captions)
    spoken = counts.most_common(1)[0][0] if counts else ""
    texts = [DatasetText(id, text, spoken, CAPTION, {key: 1}) for id, text, key in captions]
    return split, pictures, texts


def _list_shards(folder: Path) -> list[Path]:
    """List all tars, by number where they have one; as many as ``nshards.txt`` says."""
    tars = sorted(folder.glob("*.tar"), key=lambda tar: (len(tar.stem), tar.stem))
    count = folder / "nshards.txt"
    if count.is_file():
        for place, text in _read_lines(count):
            if not text.strip().isdecimal() or int(text) != len(tars):
                raise BadInput("eval-shards", place=place, expected=text[:20], found=len(tars))
    return tars


def _tar_pairs(tar: Path) -> Iterator[tuple[DatasetImage, list[str]]]:
    """Yield each picture of a tar with its captions."""
    files: dict[str, dict[str, tarfile.TarInfo]] = defaultdict(dict)
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if member.isreg() and stem:
                    files[f"{folder}/{stem}".lstrip("/")][suffix.lower()] = member
    except (OSError, tarfile.TarError) as error:
        raise BadInput("eval-tar", file=tar, error=error) from error
    for key, members in files.items():
        picture = next((members[suffix] for suffix in TAR_SUFFIXES if suffix in members), None)
        captions = members.get("txt")
        if picture is None and captions is None:
            continue  # something else that lies there, such as KEY.json
        if picture is None or captions is None:
            raise BadInput("eval-pair", file=tar, key=key)
        read = partial(_read_part, tar, picture.offset_data, picture.size)
        length = min(captions.size, MAX_CAPTION_BYTES)
        try:
            text = _read_part(tar, captions.offset_data, length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput("eval-not-utf8", place=f"{tar}: {captions.name}") from error
        lines = [line.strip() for line in text.splitlines()]
        image = DatasetImage(key, f"{tar}: {picture.name}", picture.size, read)
        yield image, [line for line in lines if line]


# --- What several layouts share


@dataclass(frozen=True)
class _Record:
    """Named values, and the place where they stand: ``queries.jsonl:12``."""

    place: str
    fields: Mapping[str, object]

    @classmethod
    def of(cls, place: str, value: object) -> _Record:
        if not isinstance(value, dict):
            raise BadInput("eval-json", place=place, error=type(value).__name__)
        return cls(place, value)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text that is not blank; a number counts as an id. Absent, null: ``default``."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        text = str(value) if _is_id(value) else ""
        if not text.strip():
            raise BadInput("eval-field", place=self.place, field=name, form=f'"{name}": "…"')
        return text

    def ids(self, name: str) -> list[str]:
        """Return a list of ids, which are numbers or texts; it may be empty."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(map(_is_id, value)):
            raise BadInput("eval-field", place=self.place, field=name, form=f'"{name}": [1, …]')
        return [str(id) for id in value]

    def records(self, name: str, separator: str = ".") -> list[_Record]:
        """Return a list of objects."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise BadInput("eval-field", place=self.place, field=name, form=f'"{name}": [{{…}}]')
        prefix = f"{self.place}{separator}{name}"
        return [_Record.of(f"{prefix}[{i}]", item) for i, item in enumerate(value)]


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


class _UniqueIds:
    """Ids that may be given once only."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def add(self, id: str, place: str) -> str:
        first = self._places.setdefault(id, place)
        if first != place:
            raise BadInput("eval-repeated", place=place, id=id, first=first)
        return id


def _json_lines(file: Path) -> Iterator[_Record]:
    """Read one JSON object a line."""
    for place, text in _read_lines(file):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput("eval-json", place=place, error=error) from error
        yield _Record.of(place, value)


def _csv_or_json(
    stem: Path, required: tuple[str, ...], optional: tuple[str, ...]
) -> Iterator[_Record]:
    """Read ``stem``.csv or ``stem``.jsonl.

    The CSV's header begins with ``required`` and goes on with some of ``optional``; an empty cell
    of the latter counts as absent.
    """
    file = stem.with_suffix(".csv")
    if not file.is_file():
        yield from _json_lines(stem.with_suffix(".jsonl"))
        return
    header: list[str] = []
    count = len(required)
    for place, text in _read_lines(file):  # a cell has no line ends in it
        try:
            cells = next(csv.reader([text], strict=True))
        except csv.Error as error:
            raise BadInput("eval-quote", place=place, error=error) from error
        if not header:
            known = cells[:count] == [*required] and {*cells[count:]} <= {*optional}
            if not known or len({*cells}) != len(cells):
                expected = ",".join(required)
                raise BadInput("eval-header", place=place, found=text[:200], expected=expected)
            header = cells
            continue
        if len(cells) != len(header):
            counts = {"found": len(cells), "expected": len(header)}
            raise BadInput("eval-columns", place=place, columns=",".join(header), **counts)
        row = dict(zip(header, cells, strict=True))
        yield _Record(place, {n: c for n, c in row.items() if c or n in required})


def _read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of each line that is not blank.

    Raises BadInput for a file that cannot be read and for a line that is no UTF-8.
    """
    try:
        with file.open("rb") as stream:
            for number, data in enumerate(stream, 1):
                place = f"{file}:{number}"
                try:
                    text = data.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise BadInput("eval-not-utf8", place=place) from error
                if text.strip():
                    yield place, text.rstrip("\r\n")
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> BadInput:
    reason = error.strerror or type(error).__name__
    return BadInput("eval-unreadable", file=file, reason=reason)


def _read_part(file: Path, start: int, length: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)


def _existing_file(file: Path, id: str, place: str) -> DatasetImage:
    """Return the picture in ``file``, which ``place`` names; raise BadInput if it is not there."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise BadInput("eval-no-picture", place=place, picture=file) from error
    return DatasetImage(id, str(file), size, file.read_bytes)


def _require_pictures(ids: Iterable[str], pictures: Collection[str], place: str) -> None:
    for id in ids:
        if id not in pictures:
            raise BadInput("eval-no-picture", place=place, picture=id)


def _choose_split(folder: Path, split: str | None, known: Collection[str]) -> str:
    """Return the split asked for, "test", or the only one; raise BadInput if it is not there."""
    split = split or (TEST if TEST in known or len(known) != 1 else next(iter(known)))
    if split not in known:
        names = ", ".join(sorted(known)) or "-"
        raise BadInput("eval-split", folder=folder, split=split, known=names)
    return split


def _refuse_split(folder: Path, split: str | None) -> None:
    if split is not None:
        raise BadInput("eval-split", folder=folder, split=split, known="-")


def _language_of(text: str) -> str:
    """Return "zh" where there is any Chinese in it, else "en"."""
    return EN if language(text) == EN else ZH


# In this order a folder is tried: layouts with the most telling names first.
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("chinese-clip", lambda f: bool(_chinese_clip_splits(f)), _load_chinese_clip),
        Layout("qrels", _fits_qrels, _load_qrels),
        Layout("queries", _fits_queries, _load_queries),
        Layout("crossmodal-3600", _fits_crossmodal, _load_crossmodal),
        Layout("webdataset", _fits_webdataset, _load_webdataset),
        Layout("karpathy", lambda folder: _find_karpathy(folder) is not None, _load_karpathy),
    )
}
