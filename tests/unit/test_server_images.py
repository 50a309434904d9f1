"""Pictures and thumbnails over HTTP: only what is indexed, only from inside the gallery."""

import io
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from soutu.gallery import Gallery
from soutu.server import media
from tests.conftest import picture
from tests.serving import api_client

BASE = "/api/v1"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "photos"
    made.mkdir()
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(picture(1)).resize((900, 600)).save(made / "a.jpg", exif=turned)
    Image.fromarray(picture(2)).save(made / "图 \"b'.png")
    Image.fromarray(picture(3)).save(made / "c.tiff")
    shutil.copy(made / "a.jpg", made / "png in name.png")
    return made


@pytest.fixture
def api(folder, tmp_path):
    with Gallery.open(folder, model="tiny") as gallery:
        gallery.index()
    with api_client(folder, tmp_path / "thumbnails") as client:
        yield client


def opened(answer):
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def refused(answer, status=404):
    assert answer.status_code == status
    return answer.json()["error"]["code"]


def test_a_thumbnail_is_upright_and_small(api):
    for size, shown in ((256, (171, 256)), (512, (341, 512)), (1024, (600, 900))):
        answer = api.get(f"{BASE}/thumbnails/{api.ids['a.jpg']}?size={size}")
        assert answer.headers["content-type"] == "image/webp"
        assert opened(answer).size == shown


def test_it_is_sent_once(api):
    path = f"{BASE}/thumbnails/{api.ids['a.jpg']}"
    first = api.get(path)
    assert first.headers["cache-control"] == "private, no-cache"
    again = api.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "immutable" in api.get(f"{path}?v=3").headers["cache-control"]


def test_a_changed_file_has_another_thumbnail(api, folder):
    path = f"{BASE}/thumbnails/{api.ids['a.jpg']}"
    first = api.get(path)
    Image.new("RGB", (40, 20), "red").save(folder / "a.jpg")
    shutil.copy(folder / "a.jpg", folder / "png in name.png")
    second = api.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert opened(second).size == (40, 20)


def convert(file, side, quality):
    out = io.BytesIO()
    image = Image.open(io.BytesIO(file.read()))
    image.thumbnail((side, side))
    image.save(out, "WEBP", quality=quality)
    return out.getvalue()


def test_two_that_ask_at_once_have_it_made_once(folder, tmp_path):
    made, both = [], threading.Barrier(2)

    def counted(*given):
        made.append(1)
        return convert(*given)

    thumbnails = media.ThumbnailCache(tmp_path / "t", 10**9, counted)

    def ask(_):
        both.wait(5)
        with media.open_inside(folder, ["a.jpg"], 1) as file:
            return thumbnails.get(file, 256).data

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(ask, range(2))
    assert one == other
    assert made == [1]


def test_room_is_bounded(folder, tmp_path):
    thumbnails = media.ThumbnailCache(tmp_path / "t", 2000, convert)
    with media.open_inside(folder, ["a.jpg"], 1) as file:
        for size in range(100, 140):
            thumbnails.get(file, size)
        newest = thumbnails.get(file, 99).etag
    thumbnails.prune()
    kept = list((tmp_path / "t").rglob("*.webp"))
    assert sum(file.stat().st_size for file in kept) <= 2000
    assert newest in {file.stem for file in kept}
    assert (tmp_path / "t").stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(folder, tmp_path):
    (tmp_path / "file").write_text("x")
    thumbnails = media.ThumbnailCache(tmp_path / "file" / "t", 2000, convert)
    with media.open_inside(folder, ["a.jpg"], 1) as file:
        assert thumbnails.get(file, 256).data


def test_the_picture_itself(api, folder):
    answer = api.get(f"{BASE}/images/{api.ids['a.jpg']}")
    assert answer.content == (folder / "a.jpg").read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-disposition"].startswith("inline;")
    etag = {"If-None-Match": answer.headers["etag"]}
    assert api.get(f"{BASE}/images/{api.ids['a.jpg']}", headers=etag).status_code == 304


def test_a_name_is_told_so_that_no_header_breaks(api):
    id_ = api.ids["图 \"b'.png"]
    answer = api.get(f"{BASE}/images/{id_}?download=true")
    said = answer.headers["content-disposition"]
    assert said == "attachment; filename*=UTF-8''%E5%9B%BE%20%22b%27.png"


def test_what_browsers_do_not_show_becomes_webp(api):
    answer = api.get(f"{BASE}/images/{api.ids['c.tiff']}")
    assert answer.headers["content-type"] == "image/webp"
    assert opened(answer).format == "WEBP"


def test_what_is_known_of_it(api):
    told = api.get(f"{BASE}/images/{api.ids['a.jpg']}/info").json()
    assert set(told["paths"]) == {"a.jpg", "png in name.png"}
    assert (told["width"], told["height"]) == (600, 900)
    assert told["size"] > 0


@pytest.mark.parametrize("id_", ["99", "0", str(2**63 - 1)])
def test_ids_that_nothing_has(api, id_):
    for path in (f"images/{id_}", f"thumbnails/{id_}", f"images/{id_}/info"):
        assert refused(api.get(f"{BASE}/{path}")) == "server-no-image"


@pytest.mark.parametrize("id_", ["-1", "x", "1.5", str(2**63), "1e3", "%2e%2e", "..%2f..%2fetc"])
def test_ids_that_are_none(api, id_):
    answer = api.get(f"{BASE}/thumbnails/{id_}")
    assert answer.status_code in (400, 404)
    assert "error" in answer.json()


def test_a_link_that_leads_out_is_not_followed(api, folder, tmp_path):
    outside = tmp_path / "outside.jpg"
    (folder / "a.jpg").rename(outside)
    (folder / "a.jpg").symlink_to(outside)
    (folder / "png in name.png").unlink()
    for path in ("images", "thumbnails"):
        assert refused(api.get(f"{BASE}/{path}/{api.ids['a.jpg']}")) == "server-file-gone"
    assert api.get(f"{BASE}/images/{api.ids['a.jpg']}/info").json()["size"] is None


def test_a_folder_that_became_a_link_is_not_followed(tmp_path):
    root, other = tmp_path / "g", tmp_path / "other"
    (root / "sub").mkdir(parents=True)
    other.mkdir()
    Image.fromarray(picture(1)).save(root / "sub" / "a.png")
    Image.fromarray(picture(2)).save(other / "a.png")
    with media.open_inside(root, ["sub/a.png"], 1) as file:
        assert file.media_type() == "image/png"
    shutil.rmtree(root / "sub")
    (root / "sub").symlink_to(other)
    with pytest.raises(media.NotFound):
        media.open_inside(root, ["sub/a.png"], 1)


@pytest.mark.parametrize("kind", ["folder", "pipe", "gone", "text"])
def test_what_is_no_picture_any_more(api, folder, kind):
    import os

    (folder / "c.tiff").unlink()
    if kind == "folder":
        (folder / "c.tiff").mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / "c.tiff")
    elif kind == "text":
        (folder / "c.tiff").write_text("<script>alert(1)</script>")
    for path in ("images", "thumbnails"):
        answer = api.get(f"{BASE}/{path}/{api.ids['c.tiff']}")
        assert answer.status_code == (400 if kind == "text" else 404)
        assert "script" not in answer.headers.get("content-type", "")
