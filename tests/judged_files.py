"""Small judged collections, each in the exact layout of a public one."""

import base64
import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from tests.conftest import picture


def jpeg(seed: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture(seed)).save(data, "JPEG")
    return data.getvalue()


def json_lines(file: Path, rows) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(text, "utf-8")


def _images(folder: Path, names) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(seed))


def queries(folder: Path) -> Path:
    _images(folder, ["images/1.jpg", "images/2.jpg", "images/3.jpg"])
    json_lines(folder / "queries.jsonl", [
        {"id": "q1", "lang": "zh", "kind": "word", "text": "灰猫", "relevant": ["images/1.jpg"]},
        {"id": "q2", "text": "a dog", "relevant": ["images/2.jpg", "images/3.jpg"]},
    ])  # fmt: skip
    return folder


def qrels_csv(folder: Path) -> Path:
    _images(folder, ["a.jpg", "sub/b.jpg", "sub/c.jpg"])
    (folder / "queries.csv").write_text(
        '\ufeffquery_id,text,lang\n1,灰猫,\n2,"a dog, running",en\n', "utf-8"
    )
    (folder / "qrels.csv").write_text(
        "query_id,image_path,relevance\n1,a.jpg,2\n1,sub/b.jpg,\n\n1,sub/c.jpg,0\n2,sub/c.jpg,1\n",
        "utf-8",
    )
    return folder


def qrels_jsonl(folder: Path) -> Path:
    _images(folder, ["a.jpg", "sub/b.jpg", "sub/c.jpg"])
    json_lines(folder / "queries.jsonl", [
        {"query_id": 1, "text": "灰猫"}, {"query_id": 2, "text": "a dog, running", "lang": "en"},
    ])  # fmt: skip
    json_lines(folder / "qrels.jsonl", [
        {"query_id": 1, "image_path": "a.jpg", "relevance": 2},
        {"query_id": 1, "image_path": "sub/b.jpg"},
        {"query_id": 1, "image_path": "sub/c.jpg", "relevance": 0},
        {"query_id": 2, "image_path": "sub/c.jpg", "relevance": 1},
    ])  # fmt: skip
    return folder


def chinese_clip(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split, ids in (("test", (1000002, 1000016)), ("valid", (7,))):
        # The standard alphabet in one, the one for URLs in the other: both are about.
        encode = base64.b64encode if split == "test" else base64.urlsafe_b64encode
        lines = [f"{id}\t{encode(jpeg(id % 100)).decode()}\n" for id in ids]
        (folder / f"{split}_imgs.tsv").write_text("".join(lines), "utf-8")
    json_lines(folder / "test_texts.jsonl", [
        {"text_id": 0, "text": "一只灰猫", "image_ids": [1000002]},
        {"text_id": 1, "text": "两只 cat", "image_ids": [1000002, 1000016]},
        {"text_id": 2, "text": "小猪", "image_ids": []},
    ])  # fmt: skip
    json_lines(folder / "valid_texts.jsonl", [{"text_id": 8428, "text": "金毛", "image_ids": [7]}])
    return folder


def karpathy(folder: Path) -> Path:
    _images(folder, ["val2014/COCO_1.jpg", "val2014/COCO_2.jpg", "images/train2014/COCO_3.jpg"])
    images = [
        {"filepath": path, "filename": f"COCO_{n}.jpg", "split": split, "imgid": n, "cocoid": n,
         "sentids": [2 * n, 2 * n + 1],
         "sentences": [{"tokens": ["a", "cat"], "raw": f"a cat {n}.\n", "imgid": n,
                        "sentid": 2 * n},
                       {"tokens": ["a"], "raw": "A dog - running.", "imgid": n,
                        "sentid": 2 * n + 1}]}
        for n, path, split in ((1, "val2014", "test"), (2, "val2014", "test"),
                               (3, "train2014", "restval"))
    ]  # fmt: skip
    (folder / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    return folder


def crossmodal(folder: Path) -> Path:
    _images(folder, ["images/000411001ff7dd4f.jpg", "images/0012.jpg"])
    json_lines(folder / "captions.jsonl", [
        {"image/key": "000411001ff7dd4f", "image/locale": "ar",
         "zh": {"caption": ["一只灰猫", "猫"], "caption/tokenized": ["一只 灰猫", "猫"]},
         "en": {"caption": ["a gray cat"]}, "de": {"caption": ["Katze"]}},
        {"image/key": "0012", "en": {"caption": ["a dog"]}, "zh": {"caption": ["狗"]}},
    ])  # fmt: skip
    return folder


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def webdataset(folder: Path) -> Path:
    (folder / "test").mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for at in range(2):
                key = f"s{2 * shard + at:07d}"
                add(tar, f"{key}.jpg", jpeg(2 * shard + at))
                add(tar, f"{key}.txt", f"一只猫 {key}\n\n12\n".encode())
                add(tar, f"{key}.json", b"{}")
    (folder / "test" / "nshards.txt").write_text("2")
    return folder
