"""Collections in every layout, and what is malformed in them."""

import json
import tarfile

import pytest

from soutu.errors import BadImage, BadInput
from soutu.evaluation.loaders import LAYOUTS, open_dataset
from soutu.images.decode import decode
from tests import judged_files as made

MAKERS = {
    "queries": made.queries,
    "qrels": made.qrels_csv,
    "chinese-clip": made.chinese_clip,
    "karpathy": made.karpathy,
    "crossmodal-3600": made.crossmodal,
    "webdataset": made.webdataset,
}


def said(collection):
    return [(t.id, t.text, t.lang, t.kind, dict(t.right)) for t in collection.texts]


def fault(folder, **more) -> str:
    with pytest.raises(BadInput) as caught:
        open_dataset(folder, **more)
    assert caught.value.message("zh") != str(caught.value)
    return str(caught.value)


def test_every_layout_has_a_sample():
    assert set(MAKERS) == set(LAYOUTS)


@pytest.mark.parametrize("name", MAKERS)
def test_a_layout_is_recognised_and_its_pictures_can_be_read(name, tmp_path):
    collection = open_dataset(MAKERS[name](tmp_path / "c"))
    assert (collection.layout, collection.name) == (name, "c")
    again = open_dataset(tmp_path / "c", layout=name)
    assert again.fingerprint == collection.fingerprint
    for one in collection.pictures:
        data = one.read()
        assert decode(data, name=one.path).rgb.shape == (40, 60, 3)
        assert 0 <= one.size - len(data) <= 2, "base64 tells its length to two bytes"
    ids = {one.id for one in collection.pictures}
    assert len(ids) == len(collection.pictures) >= 2
    assert all(set(text.right) <= ids for text in collection.texts)


def test_queries(tmp_path):
    assert said(open_dataset(made.queries(tmp_path))) == [
        ("q1", "灰猫", "zh", "word", {"images/1.jpg": 1}),
        ("q2", "a dog", "en", "query", {"images/2.jpg": 1, "images/3.jpg": 1}),
    ]


@pytest.mark.parametrize("make", [made.qrels_csv, made.qrels_jsonl])
def test_qrels(make, tmp_path):
    collection = open_dataset(make(tmp_path))
    assert [one.id for one in collection.pictures] == ["a.jpg", "sub/b.jpg", "sub/c.jpg"]
    assert said(collection) == [
        ("1", "灰猫", "zh", "query", {"a.jpg": 2, "sub/b.jpg": 1}),
        ("2", "a dog, running", "en", "query", {"sub/c.jpg": 1}),
    ]


def test_chinese_clip(tmp_path):
    folder = made.chinese_clip(tmp_path / "MUGE")
    test = open_dataset(folder)
    assert test.split == "test"
    assert said(test) == [
        ("0", "一只灰猫", "zh", "caption", {"1000002": 1}),
        ("1", "两只 cat", "zh", "caption", {"1000002": 1, "1000016": 1}),
        ("2", "小猪", "zh", "caption", {}),
    ]
    assert test.pictures[1].read() == made.jpeg(16)
    valid = open_dataset(folder, split="valid")
    assert [(p.id, p.read()) for p in valid.pictures] == [("7", made.jpeg(7))]
    assert "test, valid" in fault(folder, split="train")


def test_karpathy(tmp_path):
    folder = made.karpathy(tmp_path)
    test = open_dataset(folder)
    assert [one.id for one in test.pictures] == ["val2014/COCO_1.jpg", "val2014/COCO_2.jpg"]
    assert said(test)[:2] == [
        ("2", "a cat 1.", "en", "caption", {"val2014/COCO_1.jpg": 1}),
        ("3", "A dog - running.", "en", "caption", {"val2014/COCO_1.jpg": 1}),
    ]
    (one,) = open_dataset(folder, split="restval").pictures
    assert (one.id, one.read()) == ("train2014/COCO_3.jpg", made.jpeg(2))


def test_crossmodal(tmp_path):
    folder, key = made.crossmodal(tmp_path), "000411001ff7dd4f"
    assert said(open_dataset(folder))[:3] == [
        (f"{key}-zh-0", "一只灰猫", "zh", "caption", {key: 1}),
        (f"{key}-zh-1", "猫", "zh", "caption", {key: 1}),
        (f"{key}-en-0", "a gray cat", "en", "caption", {key: 1}),
    ]
    german = open_dataset(folder, lang="de")
    assert [one.text for one in german.texts] == ["Katze"]
    assert len(german.pictures) == 2, "a picture without a text is still searched"


def test_webdataset(tmp_path):
    folder = made.webdataset(tmp_path)
    collection = open_dataset(folder)
    assert [one.id for one in collection.pictures] == [f"s{n:07d}" for n in range(4)]
    assert collection.pictures[3].read() == made.jpeg(3)
    assert said(collection)[:2] == [
        ("s0000000-0", "一只猫 s0000000", "zh", "caption", {"s0000000": 1}),
        ("s0000000-1", "12", "zh", "caption", {"s0000000": 1}),
    ]
    flat = open_dataset(folder / "test")
    assert [one.id for one in flat.pictures] == [one.id for one in collection.pictures]


def test_the_fingerprint_is_the_content(tmp_path):
    first = open_dataset(made.queries(tmp_path / "a"))
    moved = open_dataset(made.queries(tmp_path / "b"))
    assert moved.fingerprint == first.fingerprint
    (tmp_path / "b" / "images" / "1.jpg").write_bytes(made.jpeg(9))
    assert open_dataset(tmp_path / "b").fingerprint != first.fingerprint
    rows = (tmp_path / "a" / "queries.jsonl").read_text("utf-8").replace("images/2", "images/1")
    (tmp_path / "a" / "queries.jsonl").write_text(rows, "utf-8")
    assert open_dataset(tmp_path / "a").fingerprint != first.fingerprint


def test_languages_and_limits(tmp_path):
    folder = made.queries(tmp_path)
    assert [t.id for t in open_dataset(folder, lang="en").texts] == ["q2"]
    assert "it has: en, zh" in fault(folder, lang="fr")
    few = open_dataset(folder).first(2)
    assert [dict(t.right) for t in few.texts] == [{"images/1.jpg": 1}, {"images/2.jpg": 1}]
    assert [t.id for t in open_dataset(folder).first(1).texts] == ["q1"]


BROKEN = [
    (made.queries, "queries.jsonl", 1, '{"id": "q1"', "no JSON object"),
    (made.queries, "queries.jsonl", 1, "[1]", "no JSON object (list)"),
    (made.queries, "queries.jsonl", 1, '{"id": "x", "relevant": []}', "text is missing"),
    (made.queries, "queries.jsonl", 1, '{"id": "x", "text": " ", "relevant": []}', "text is"),
    (made.queries, "queries.jsonl", 1, '{"id": "x", "text": "x"}', "relevant is missing"),
    (made.queries, "queries.jsonl", 1, '{"id": "x", "text": "x", "relevant": [["y"]]}', "relevant"),
    (made.queries, "queries.jsonl", 1, '{"id": "x", "text": "x", "relevant": ["n.jpg"]}', "n.jpg"),
    (made.queries, "queries.jsonl", 1, '{"id": "q1", "text": "x", "relevant": []}', "jsonl:1"),
    (made.queries, "queries.jsonl", 1, b"\xc4\xe3\xba\xc3", "not UTF-8"),
    (made.qrels_csv, "queries.csv", 0, "id,text", "must begin with query_id,text"),
    (made.qrels_csv, "queries.csv", 0, "query_id,text,colour", "header"),
    (made.qrels_csv, "queries.csv", 2, "2,a dog, running,en", "4 columns instead of 3"),
    (made.qrels_csv, "queries.csv", 2, '2,"a dog,en', "quotes"),
    (made.qrels_csv, "qrels.csv", 1, "9,a.jpg,1", "no query 9"),
    (made.qrels_csv, "qrels.csv", 1, "1,nowhere.jpg,1", "nowhere.jpg"),
    (made.qrels_csv, "qrels.csv", 1, "1,a.jpg,-1", "relevance"),
    (made.qrels_csv, "qrels.csv", 2, "1,a.jpg,1", "already given"),
    (made.qrels_jsonl, "qrels.jsonl", 1, '{"query_id": 1}', "image_path is missing"),
    (made.chinese_clip, "test_imgs.tsv", 1, "1000016", "1 columns instead of 2"),
    (made.chinese_clip, "test_imgs.tsv", 1, "1000016\tabc", "no base64"),
    (made.chinese_clip, "test_imgs.tsv", 1, "1000016\t中文", "no base64"),
    (made.chinese_clip, "test_imgs.tsv", 1, "1000002\tQUJD", "already given"),
    (made.chinese_clip, "test_texts.jsonl", 1, '{"text_id": 1, "text": "x", "image_ids": [5]}',
     "picture 5 does not exist"),
    (made.chinese_clip, "test_texts.jsonl", 1, '{"text_id": 1, "text": "x"}', "image_ids"),
    (made.crossmodal, "captions.jsonl", 1, '{"image/key": "0013"}', "0013.jpg"),
    (made.crossmodal, "captions.jsonl", 1, '{"image/key": "0012", "zh": ["狗"]}', "zh is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name", "at", "line", "told"), BROKEN)
def test_a_malformed_line_is_named_by_file_and_number(make, name, at, line, told, tmp_path):
    file = make(tmp_path / "c") / name
    lines = file.read_bytes().splitlines(keepends=True)
    lines[at] = (line if isinstance(line, bytes) else line.encode()) + b"\n"
    file.write_bytes(b"".join(lines))
    message = fault(tmp_path / "c")
    assert f"{file}:{at + 1}" in message
    assert told in message


def test_a_malformed_entry_of_karpathys_file_is_named_by_its_place(tmp_path):
    file = made.karpathy(tmp_path) / "dataset_coco.json"
    good = json.loads(file.read_text())
    for change, told in (
        (lambda d: d["images"][1].pop("filename"), "images[1]: filename is missing"),
        (lambda d: d["images"][1].update(filename="none.jpg"), "images[1]: the picture"),
        (lambda d: d["images"][0].update(sentences=3), "images[0]: sentences is missing"),
        (lambda d: d["images"][0]["sentences"][1].pop("raw"), "images[0].sentences[1]: raw is"),
        (lambda d: d["images"][1]["sentences"][0].update(sentid=2), "2 was already given"),
        (lambda d: d["images"].append(7), "images[3]: this is no JSON object (int)"),
        (lambda d: d.update(images={}), "images is missing"),
    ):
        broken = json.loads(json.dumps(good))
        change(broken)
        file.write_text(json.dumps(broken))
        assert told in fault(tmp_path)
    file.write_text('{"images": [')
    assert "no JSON object" in fault(tmp_path)


def test_damaged_tars_are_named(tmp_path):
    folder = made.webdataset(tmp_path)
    (folder / "test" / "nshards.txt").write_text("3")
    assert "nshards.txt:1: it tells 3 tars, but 2 are there" in fault(folder)
    (folder / "test" / "nshards.txt").unlink()
    whole = (folder / "test" / "1.tar").read_bytes()
    (folder / "test" / "1.tar").write_bytes(whole[:2000])
    assert "1.tar is no whole, uncompressed tar" in fault(folder)
    with tarfile.open(folder / "test" / "1.tar", "w") as tar:
        made.add(tar, "k.txt", b"a cat\n")
    assert "1.tar: k lacks its picture" in fault(folder)
    with tarfile.open(folder / "test" / "1.tar", "w") as tar:
        made.add(tar, "s0000000.jpg", made.jpeg(1))
        made.add(tar, "s0000000.txt", b"a cat\n")
    assert "already given" in fault(folder)


def test_a_folder_of_no_layout_and_a_wrong_name(tmp_path):
    assert "chinese-clip, qrels" in fault(tmp_path)
    assert "no layout called coco" in fault(tmp_path, layout="coco")
    assert "no such folder" in fault(tmp_path / "nowhere")
    for name in LAYOUTS:
        fault(tmp_path, layout=name)
    assert "no split called test" in fault(made.queries(tmp_path / "c"), split="test")


def test_secret_answers_are_told(tmp_path):
    folder = made.chinese_clip(tmp_path / "c")
    made.json_lines(folder / "test_texts.jsonl", [{"text_id": 1, "text": "猫", "image_ids": []}])
    assert "secret" in fault(folder)


def test_a_picture_that_cannot_be_read_is_named_and_not_left_out(tmp_path):
    folder = made.queries(tmp_path)
    (folder / "images" / "3.jpg").write_bytes(b"")
    with pytest.raises(BadImage, match="empty"):
        open_dataset(folder)
