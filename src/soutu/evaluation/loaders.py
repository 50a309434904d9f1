"""The layouts that judged collections come in: one a module, all in ``LAYOUTS``."""

from __future__ import annotations

import base64
import csv
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from soutu.errors import BadInput, SoutuError
from soutu.evaluation.dataset import Dataset, DatasetImage, DatasetText
from soutu.images.scan import check_root, walk
from soutu.text import EN, ZH, language

# Reading judgement files line by line, each fault named by file and number.


@dataclass(frozen=True)
class TextRecord:
    """Named values, and the place where they stand: ``queries.jsonl:12``."""

    place: str
    fields: Mapping[str, object]

    def text(self, name: str, default: str | None = None) -> str:
        """A text that is not blank; a number counts as an id. Absent or null: ``default``."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        found = str(value) if _is_id(value) else ""
        if not found.strip():
            raise BadInput("eval-field", place=self.place, field=name, form=f'"{name}": "…"')
        return found

    def ids(self, name: str) -> list[str]:
        """A list of ids, which are numbers or texts; it may be empty."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(map(_is_id, value)):
            raise BadInput("eval-field", place=self.place, field=name, form=f'"{name}": [1, …]')
        return [str(one) for one in value]


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of each line that is not blank. BadInput for a file that cannot be read and
    for a line that is no UTF-8."""
    try:
        with file.open("rb") as stream:
            for number, data in enumerate(stream, 1):
                place = f"{file}:{number}"
                try:
                    text = data.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as fault:
                    raise BadInput("eval-not-utf8", place=place) from fault
                if text.strip():
                    yield place, text.rstrip("\r\n")
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise BadInput("eval-unreadable", file=file, reason=reason) from fault


def json_lines(file: Path) -> Iterator[TextRecord]:
    """One JSON object a line."""
    for place, text in read_lines(file):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as fault:
            raise BadInput("eval-json", place=place, fault=fault) from fault
        if not isinstance(value, dict):
            raise BadInput("eval-json", place=place, fault=type(value).__name__)
        yield TextRecord(place, value)


def csv_rows(
    file: Path, needed: tuple[str, ...], allowed: tuple[str, ...] = ()
) -> Iterator[TextRecord]:
    """Rows below a header that begins with ``needed`` and goes on with some of ``allowed``; an
    empty cell of the latter counts as absent."""
    wanted, header = ",".join(needed), list[str]()
    for place, text in read_lines(file):  # a cell has no line ends in it
        try:
            cells = next(csv.reader([text], strict=True))
        except csv.Error as fault:
            raise BadInput("eval-quote", place=place, fault=fault) from fault
        if not header:
            known = cells[: len(needed)] == [*needed] and {*cells[len(needed) :]} <= {*allowed}
            if not known or len({*cells}) != len(cells):
                raise BadInput("eval-header", place=place, found=text[:200], wanted=wanted)
            header = cells
            continue
        if len(cells) != len(header):
            counts = {"found": len(cells), "expected": len(header)}
            raise BadInput("eval-columns", place=place, columns=",".join(header), **counts)
        optional = {*header[len(needed) :]}
        row = dict(zip(header, cells, strict=True))
        yield TextRecord(place, {n: c for n, c in row.items() if c or n not in optional})


class UniqueIds:
    """Ids that may be given once only."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def add(self, id: str, place: str) -> str:
        first = self._seen.setdefault(id, place)
        if first != place:
            raise BadInput("eval-repeated", place=place, id=id, first=first)
        return id

    def __contains__(self, id: str) -> bool:
        return id in self._seen


def language_of(text: str) -> str:
    """ "zh" where there is any Chinese in it, else "en"."""
    return EN if language(text) == EN else ZH


def existing_file(file: Path, id: str, place: str) -> DatasetImage:
    """The picture in ``file``, which ``place`` names; BadInput where it is not there."""
    try:
        size = file.stat().st_size
    except OSError as fault:
        raise BadInput("eval-no-picture", place=place, picture=file) from fault
    return DatasetImage(id, str(file), size, file.read_bytes)


# What a layout can do, and what several of them share.


TEST = "test"
Load: TypeAlias = "Callable[[Path, str | None, str | None], Dataset]"


@dataclass(frozen=True)
class Layout:
    """``fits`` says whether a folder looks like it; ``load(folder, split, lang)`` reads it."""

    name: str
    fits: Callable[[Path], bool]
    load: Load


def name_of(folder: Path) -> str:
    return folder.resolve().name


def chosen_split(folder: Path, split: str | None, known: Collection[str]) -> str:
    """The split asked for, "test", or the only one. BadInput where it is not there."""
    wanted = split or (TEST if TEST in known or len(known) != 1 else next(iter(known)))
    if wanted not in known:
        names = ", ".join(sorted(known)) or "-"
        raise BadInput("eval-split", folder=folder, split=wanted, known=names)
    return wanted


def no_split(folder: Path, split: str | None) -> None:
    """BadInput where a split is asked for and the layout has none."""
    if split is not None:
        raise BadInput("eval-split", folder=folder, split=split, known="-")


def pictures_below(folder: Path) -> Iterator[DatasetImage]:
    """All pictures below ``folder``, judged or not, by path. Raises BadImage for one that cannot
    be read: without it the figures would be of another collection."""
    for found in walk(folder):
        if isinstance(found, SoutuError):
            raise found
        yield existing_file(folder / found.path, found.path, str(folder))


# What ``training.collections`` writes, and the simplest that a person can write by hand.
#
#     queries.jsonl   {"id": "zh-word-1", "text": "钥匙", "relevant": ["images/1.jpg"], "lang":
#     "zh", "kind": "word"}
#     images/…        all pictures below the folder are searched, judged or not
#
# ``lang`` and ``kind`` may be left out.


QUERIES = "queries.jsonl"
QUERIES_KIND = "query"


def load_queries(folder: Path, split: str | None, lang: str | None) -> Dataset:
    no_split(folder, split)
    pictures = tuple(pictures_below(folder))
    there = {picture.id for picture in pictures}
    texts, ids = [], UniqueIds()
    for record in json_lines(folder / QUERIES):
        id, text = ids.add(record.text("id"), record.place), record.text("text")
        right = record.ids("relevant")
        for path in right:
            if path not in there:
                raise BadInput("eval-no-picture", place=record.place, picture=path)
        said = record.text("lang", language_of(text))
        kind = record.text("kind", QUERIES_KIND)
        texts.append(DatasetText(id, text, said, kind, dict.fromkeys(right, 1)))
    return Dataset(name_of(folder), QUERIES_LAYOUT.name, "", pictures, tuple(texts))


QUERIES_LAYOUT = Layout("queries", lambda folder: (folder / QUERIES).is_file(), load_queries)


# Plain judgements beside plain queries, as CSV or as JSON lines:
#
#     queries.csv     query_id,text[,lang,kind]               or queries.jsonl with these names
#     qrels.csv       query_id,image_path[,relevance]         or qrels.jsonl
#     …               all pictures below the folder are searched, judged or not
#
# ``relevance`` is a whole number, 1 where it is left out; 0 is judged and wrong, higher counts
# more.


_GRADES = '"relevance": 0, 1, 2, …'


def load_qrels(folder: Path, split: str | None, lang: str | None) -> Dataset:
    no_split(folder, split)
    pictures = tuple(pictures_below(folder))
    there = {picture.id for picture in pictures}
    ids, said = UniqueIds(), list[tuple[str, TextRecord]]()
    for record in _records(folder, "queries", ("query_id", "text"), ("lang", "kind")):
        said.append((ids.add(record.text("query_id"), record.place), record))
    right: dict[str, dict[str, int]] = {id: {} for id, _ in said}
    pairs = UniqueIds()
    for record in _records(folder, "qrels", ("query_id", "image_path"), ("relevance",)):
        id, path = record.text("query_id"), record.text("image_path")
        if id not in right:
            raise BadInput("eval-no-query", place=record.place, id=id)
        if path not in there:
            raise BadInput("eval-no-picture", place=record.place, picture=path)
        pairs.add(f"{id} {path}", record.place)
        if grade := _grade(record):
            right[id][path] = grade
    texts = []
    for id, record in said:
        text = record.text("text")
        lang_of = record.text("lang", language_of(text))
        texts.append(DatasetText(id, text, lang_of, record.text("kind", QUERIES_KIND), right[id]))
    return Dataset(name_of(folder), QRELS_LAYOUT.name, "", pictures, tuple(texts))


def _records(
    folder: Path, name: str, needed: tuple[str, ...], allowed: tuple[str, ...]
) -> Iterator[TextRecord]:
    table = folder / f"{name}.csv"
    if table.is_file():
        return csv_rows(table, needed, allowed)
    return json_lines(folder / f"{name}.jsonl")


def _grade(record: TextRecord) -> int:
    text = record.text("relevance", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise BadInput("eval-field", place=record.place, field="relevance", form=_GRADES)
    return int(text)


def _fits(folder: Path) -> bool:
    return any((folder / f"qrels.{ending}").is_file() for ending in ("csv", "jsonl"))


QRELS_LAYOUT = Layout("qrels", _fits, load_qrels)


# Karpathy's splits of COCO, Flickr30k and Flickr8k, in one JSON file beside the pictures:
#
#     dataset_coco.json   {"images": [{"filepath": "val2014", "filename": "COCO_val2014_….jpg",
#                         "split": "test", "imgid": 0, "sentences": [{"raw": "…", "sentid": 1}]}]}
#
# Pictures lie at ``filepath/filename``, ``filename``, or either below ``images/``.


KARPATHY_KIND = "caption"
_HEAD = 200  # bytes in which a file of this layout says "images" or "dataset"


def load_karpathy(folder: Path, split: str | None, lang: str | None) -> Dataset:
    file = _file(folder)
    if file is None:
        raise BadInput("eval-layout-none", folder=folder, known=KARPATHY_LAYOUT.name)
    images = _images(file)
    known = {image.text("split") for image in images}
    split = chosen_split(folder, split, known)
    pictures, texts, ids = [], list[DatasetText](), UniqueIds()
    for image in images:
        if image.fields["split"] == split:
            picture = _picture(folder, image)
            pictures.append(picture)
            texts += _texts(image, picture.id, ids)
    return Dataset(name_of(folder), KARPATHY_LAYOUT.name, split, tuple(pictures), tuple(texts))


def _images(file: Path) -> list[TextRecord]:
    """The list's objects without what is not needed: COCO's file has 8 million words in it that
    were split already."""

    def pruned(read: dict[str, object]) -> dict[str, object]:
        read.pop("tokens", None)
        return read

    try:
        loaded = json.loads(file.read_text("utf-8-sig"), object_hook=pruned)
    except (OSError, ValueError, RecursionError) as fault:
        raise BadInput("eval-json", place=file, fault=fault) from fault
    images = loaded.get("images") if isinstance(loaded, dict) else None
    if not isinstance(images, list):
        raise BadInput("eval-field", place=file, field="images", form='"images": [{…}]')
    return [_record(f"{file}: images[{at}]", image) for at, image in enumerate(images)]


def _record(place: str, value: object) -> TextRecord:
    if not isinstance(value, dict):
        raise BadInput("eval-json", place=place, fault=type(value).__name__)
    return TextRecord(place, value)


def _picture(folder: Path, image: TextRecord) -> DatasetImage:
    name, path = image.text("filename"), image.text("filepath", ".")
    relative = Path(path) / name
    tried = [home / part for home in (folder, folder / "images") for part in (relative, Path(name))]
    there = next((file for file in tried if file.is_file()), tried[0])
    return existing_file(there, relative.as_posix(), image.place)


def _texts(image: TextRecord, id: str, ids: UniqueIds) -> Iterator[DatasetText]:
    sentences = image.fields.get("sentences")
    if not isinstance(sentences, list):
        form = '"sentences": [{…}]'
        raise BadInput("eval-field", place=image.place, field="sentences", form=form)
    for at, one in enumerate(sentences):
        sentence = _record(f"{image.place}.sentences[{at}]", one)
        number = ids.add(sentence.text("sentid"), sentence.place)
        yield DatasetText(
            number, " ".join(sentence.text("raw").split()), EN, KARPATHY_KIND, {id: 1}
        )


def _file(folder: Path) -> Path | None:
    """The first JSON file that begins as these do."""
    for file in sorted(folder.glob("*.json")):
        try:
            with file.open("rb") as stream:
                head = stream.read(_HEAD)
        except OSError:
            continue
        if b'"images"' in head or b'"dataset"' in head:
            return file
    return None


KARPATHY_LAYOUT = Layout("karpathy", lambda folder: _file(folder) is not None, load_karpathy)


# The layout that Chinese-CLIP gives MUGE, Flickr30k-CN and COCO-CN:
#
# test_imgs.tsv      id TAB picture in base64 (either alphabet)
# test_texts.jsonl   {"text_id": 8428, "text": "高级感托特包斜挎", "image_ids": [1076345, 517602]}


IMAGES, TEXTS = "_imgs.tsv", "_texts.jsonl"
CHINESE_CLIP_KIND = "caption"
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def load_chinese_clip(folder: Path, split: str | None, lang: str | None) -> Dataset:
    split = chosen_split(folder, split, _splits(folder))
    pictures = tuple(_pictures(folder / f"{split}{IMAGES}"))
    there = {picture.id for picture in pictures}
    texts, ids = [], UniqueIds()
    for record in json_lines(folder / f"{split}{TEXTS}"):
        id, right = ids.add(record.text("text_id"), record.place), record.ids("image_ids")
        for image in right:
            if image not in there:
                raise BadInput("eval-no-picture", place=record.place, picture=image)
        texts.append(
            DatasetText(id, record.text("text"), ZH, CHINESE_CLIP_KIND, dict.fromkeys(right, 1))
        )
    return Dataset(name_of(folder), CHINESE_CLIP_LAYOUT.name, split, pictures, tuple(texts))


def _pictures(file: Path) -> Iterator[DatasetImage]:
    """Where each picture's base64 lies in the file; nothing of it is kept."""
    ids, start = UniqueIds(), 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                place, cells = f"{file}:{number}", line.rstrip(b"\r\n").split(b"\t")
                if line.strip():
                    yield _chinese_clip_picture(file, start, cells, place, ids)
                start += len(line)
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise BadInput("eval-unreadable", file=file, reason=reason) from fault


def _chinese_clip_picture(
    file: Path, start: int, cells: list[bytes], place: str, ids: UniqueIds
) -> DatasetImage:
    if len(cells) != 2:
        counts = {"found": len(cells), "expected": 2}
        raise BadInput("eval-columns", place=place, columns="id TAB base64", **counts)
    name, data = cells[0].decode("utf-8", "replace").strip(), cells[1].strip()
    if not name or len(data) % 4 or not _BASE64.fullmatch(data):
        raise BadInput("eval-base64", place=place, id=name)
    at = start + len(cells[0]) + 1 + cells[1].index(data)
    read = partial(_read, file, at, len(data))
    return DatasetImage(ids.add(name, place), place, len(data) * 3 // 4, read)


def _read(file: Path, start: int, length: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return base64.urlsafe_b64decode(stream.read(length).translate(_PLAIN))


_PLAIN = bytes.maketrans(b"+/", b"-_")


def _splits(folder: Path) -> set[str]:
    found = {path.name.removesuffix(IMAGES) for path in folder.glob(f"*{IMAGES}")}
    return {split for split in found if (folder / f"{split}{TEXTS}").is_file()}


CHINESE_CLIP_LAYOUT = Layout(
    "chinese-clip", lambda folder: bool(_splits(folder)), load_chinese_clip
)


# Crossmodal-3600 as it is published:
#
# captions.jsonl   {"image/key": "0001", "zh": {"caption": ["…"]}, "en": {"caption": ["…"]}, …}
# images/0001.jpg  or beside captions.jsonl


CAPTIONS, KEY = "captions.jsonl", "image/key"
CROSSMODAL_KIND = "caption"


def load_crossmodal(folder: Path, split: str | None, lang: str | None) -> Dataset:
    no_split(folder, split)
    home = folder / "images" if (folder / "images").is_dir() else folder
    pictures, texts, keys = [], list[DatasetText](), UniqueIds()
    for record in json_lines(folder / CAPTIONS):
        key = keys.add(record.text(KEY), record.place)
        pictures.append(existing_file(home / f"{key}.jpg", key, record.place))
        for said in (lang,) if lang else (ZH, EN):
            texts += _captions(record, key, said)
    return Dataset(name_of(folder), CROSSMODAL_LAYOUT.name, "", tuple(pictures), tuple(texts))


def _captions(record: TextRecord, key: str, lang: str) -> Iterator[DatasetText]:
    """A picture may lack a language."""
    if lang not in record.fields:
        return
    told = record.fields[lang]
    captions = told.get("caption") if isinstance(told, dict) else None
    if not isinstance(captions, list):
        form = f'"{lang}": {{"caption": ["…"]}}'
        raise BadInput("eval-field", place=record.place, field=lang, form=form)
    for number, caption in enumerate(captions):
        text = TextRecord(record.place, {"caption": caption}).text("caption")
        yield DatasetText(f"{key}-{lang}-{number}", text, lang, CROSSMODAL_KIND, {key: 1})


def _crossmodal_fits(folder: Path) -> bool:
    """Other collections may call a file so, too: the first line must have the key."""
    try:
        with (folder / CAPTIONS).open("rb") as stream:
            return f'"{KEY}"'.encode() in stream.readline()
    except OSError:
        return False


CROSSMODAL_LAYOUT = Layout("crossmodal-3600", _crossmodal_fits, load_crossmodal)


# Retrieval tars as CLIP_benchmark reads them:
#
#     test/nshards.txt   how many tars there are (may be missing)
#     test/0.tar …       KEY.jpg (jpeg, png, webp) beside KEY.txt, a caption on each line
#
# The tars may also lie in the folder itself.


WEBDATASET_KIND = "caption"
SUFFIXES = ("webp", "png", "jpg", "jpeg")
_MOST = 1_000_000  # bytes of captions of one picture


def load_webdataset(folder: Path, split: str | None, lang: str | None) -> Dataset:
    if any(folder.glob("*.tar")):
        no_split(folder, split)
        split, home = "", folder
    else:
        split = chosen_split(folder, split, _webdataset_splits(folder))
        home = folder / split
    pictures, captions, ids = [], list[tuple[str, str, int]](), UniqueIds()
    for tar in _shards(home):
        for picture, said in _pairs(tar):
            ids.add(picture.id, picture.path)
            pictures.append(picture)
            captions += [(picture.id, text, number) for number, text in enumerate(said)]
    # Such a collection is of one language; a caption without any letters of it is no other.
    counts = Counter(language_of(text) for _, text, _ in captions)
    said_in = counts.most_common(1)[0][0] if counts else ""
    texts = [
        DatasetText(f"{id}-{n}", text, said_in, WEBDATASET_KIND, {id: 1})
        for id, text, n in captions
    ]
    return Dataset(name_of(folder), WEBDATASET_LAYOUT.name, split, tuple(pictures), tuple(texts))


def _shards(home: Path) -> list[Path]:
    """All tars, by number where they have one; as many as ``nshards.txt`` says."""
    tars = sorted(home.glob("*.tar"), key=lambda tar: (len(tar.stem), tar.stem))
    count = home / "nshards.txt"
    if count.is_file():
        for place, text in read_lines(count):
            if not text.strip().isdecimal() or int(text) != len(tars):
                raise BadInput("eval-shards", place=place, told=text[:20], found=len(tars))
    return tars


def _pairs(tar: Path) -> Iterator[tuple[DatasetImage, list[str]]]:
    """Each picture of a tar with its captions."""
    found: dict[str, dict[str, tarfile.TarInfo]] = defaultdict(dict)
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if member.isreg() and stem:
                    found[f"{folder}/{stem}".lstrip("/")][suffix.lower()] = member
    except (OSError, tarfile.TarError) as fault:
        raise BadInput("eval-tar", file=tar, fault=fault) from fault
    for key, members in found.items():
        picture = next((members[suffix] for suffix in SUFFIXES if suffix in members), None)
        if picture is None and "txt" not in members:
            continue  # something else that lies there, such as KEY.json
        if picture is None or "txt" not in members:
            raise BadInput("eval-pair", file=tar, key=key)
        read = partial(_webdataset_read, tar, picture.offset_data, picture.size)
        opened = DatasetImage(key, f"{tar}: {picture.name}", picture.size, read)
        yield opened, _webdataset_captions(tar, members["txt"])


def _webdataset_captions(tar: Path, member: tarfile.TarInfo) -> list[str]:
    data = _webdataset_read(tar, member.offset_data, min(member.size, _MOST))
    try:
        said = [line.strip() for line in data.decode("utf-8").splitlines()]
    except UnicodeDecodeError as fault:
        raise BadInput("eval-not-utf8", place=f"{tar}: {member.name}") from fault
    return [line for line in said if line]


def _webdataset_read(tar: Path, start: int, length: int) -> bytes:
    with tar.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)


def _webdataset_splits(folder: Path) -> set[str]:
    return {tar.parent.name for tar in folder.glob("*/*.tar")}


def _webdataset_fits(folder: Path) -> bool:
    return any(folder.glob("*.tar")) or bool(_webdataset_splits(folder))


WEBDATASET_LAYOUT = Layout("webdataset", _webdataset_fits, load_webdataset)


# In this order a folder is asked what it is: those with the most telling names first.
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        CHINESE_CLIP_LAYOUT,
        QRELS_LAYOUT,
        QUERIES_LAYOUT,
        CROSSMODAL_LAYOUT,
        WEBDATASET_LAYOUT,
        KARPATHY_LAYOUT,
    )
}


def open_dataset(
    folder: Path, *, layout: str | None = None, split: str | None = None, lang: str | None = None
) -> Dataset:
    """The collection in ``folder``, in the named layout or the one that it shows. ``split`` None
    is "test" where there are splits, ``lang`` None all languages (of Crossmodal-3600's 36, Chinese
    and English). Pictures are opened only when they are read.

    BadInput for a folder of no known layout, a split or language that is not there, a malformed
    line (by file and number), and a collection in which nothing is judged.
    """
    check_root(folder)
    if layout is not None and layout not in LAYOUTS:
        raise BadInput("eval-layout-name", name=layout, known=", ".join(LAYOUTS))
    known = LAYOUTS[layout] if layout else _shown(folder)
    collection = known.load(folder, split, lang)
    if lang is not None and collection.texts:
        collection = collection.only(lang)
    if not any(text.right for text in collection.texts):
        raise BadInput("eval-unjudged", folder=folder, layout=known.name, split=collection.split)
    return collection


def _shown(folder: Path) -> Layout:
    for layout in LAYOUTS.values():
        if layout.fits(folder):
            return layout
    raise BadInput("eval-layout-none", folder=folder, known=", ".join(LAYOUTS))
