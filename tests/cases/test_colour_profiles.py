"""Colours are converted to sRGB by the profile of the picture; a broken profile is ignored."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from soutu import Gallery
from soutu.images import colour
from soutu.images.decode import decode, load_rgb
from soutu.models.preprocess import fit_picture
from tests.cases.test_thin_pictures import INFO
from tests.pictures import encoded, needs
from tests.profiles import cmyk_profile, grey_profile, rgb_profile
from tests.unit.test_decode_formats import heic

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIDE = 64


def colours():
    """Fields of colours that every space here has."""
    steps = np.array([60, 110, 160, 200], np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(8, 8, 3)
    return Image.fromarray(np.ascontiguousarray(cube.repeat(8, 0).repeat(8, 1)))


def in_space(profile, mode="RGB"):
    """The same colours in the numbers of another space."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), source, "RGB", mode)
    picture = ImageCms.applyTransform(colours(), transform)
    picture.info.clear()
    return picture


def difference(rgb, expected):
    return np.abs(rgb.astype(int) - np.asarray(expected).astype(int)).mean()


OPTIONS = {
    "JPEG": {"quality": 98, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 98, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("name", ["P3", "Adobe", "exchanged"])
def test_the_colours_are_those_that_are_meant(name, form):
    needs(form)
    profile = rgb_profile(name)
    picture = in_space(profile)
    options = OPTIONS.get(form, {})
    plain = decode(encoded(picture, form, **options)).rgb
    rgb = decode(encoded(picture, form, icc_profile=profile, **options)).rgb
    assert difference(plain, colours()) > 4
    assert difference(rgb, colours()) < 2.5


def test_a_heic_too():
    profile = rgb_profile("exchanged")
    data = heic(np.asarray(in_space(profile)), icc_profile=profile)
    assert difference(decode(data, name="a.heic").rgb, colours()) < 8


@pytest.mark.parametrize("gamma", [2.2, 1.0, 1.8])
def test_the_curve_counts_too(gamma):
    profile = rgb_profile("sRGB", gamma)
    picture = encoded(in_space(profile), "PNG", icc_profile=profile)
    assert difference(decode(picture).rgb, colours()) < 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_srgb_itself_changes_no_pixel(form):
    picture = colours()
    for profile in (SRGB, rgb_profile("sRGB", 2.2)):
        data = encoded(picture, form, icc_profile=profile)
        if profile == SRGB:
            assert (decode(data).rgb == decode(encoded(picture, form)).rgb).all()
        else:
            assert difference(decode(data).rgb, decode(encoded(picture, form)).rgb) < 4


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_greys_by_their_own_curve(form):
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(16, 0))
    data = encoded(ramp, form, icc_profile=grey_profile(1.0))
    middle = decode(data).rgb[8, 128]
    assert (middle == middle[0]).all()
    assert 180 < middle[0] < 196, "half of the light is 188 in sRGB"


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_inks_by_their_own_colours(form):
    cyan = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    plain = decode(encoded(cyan, form)).rgb[16, 16].astype(int)
    assert plain[2] > 200, "plain arithmetic: bright blue"
    red, green, blue = (
        decode(encoded(cyan, form, icc_profile=cmyk_profile())).rgb[16, 16].astype(int)
    )
    assert green > red
    assert green > blue
    white = decode(encoded(Image.new("CMYK", (32, 32)), form, icc_profile=cmyk_profile())).rgb
    assert white.min() > 245


def test_palettes_and_transparency_are_converted():
    profile = rgb_profile("exchanged")
    picture = in_space(profile)
    palette = picture.quantize(64)
    assert difference(decode(encoded(palette, "PNG", icc_profile=profile)).rgb, colours()) < 6
    clear = picture.convert("RGBA")
    clear.putalpha(Image.new("L", picture.size, 0))
    assert decode(encoded(clear, "PNG", icc_profile=profile)).rgb.min() > 250


@pytest.mark.parametrize(
    "broken",
    [
        b"", b"x" * 500, rgb_profile("P3")[:300], rgb_profile("P3")[:128] + bytes(400),
        bytes(3_000_000), rgb_profile("P3").replace(b"RGB ", b"CMYK", 1), cmyk_profile(),
        grey_profile(1.0), rgb_profile("P3").replace(b"rXYZ", b"xxxx"),
    ],
    ids=lambda data: f"{len(data)} bytes",
)  # fmt: skip
@pytest.mark.parametrize("form", ["JPEG", "TIFF", "WEBP"])
def test_a_profile_that_is_broken_or_of_another_kind_is_ignored(form, broken):
    options = OPTIONS.get(form, {})
    data = encoded(colours(), form, icc_profile=broken, **options)
    assert (decode(data).rgb == decode(encoded(colours(), form, **options)).rgb).all()


def test_what_is_cut_for_the_model_is_converted_too(tmp_path):
    profile = rgb_profile("exchanged")
    data = encoded(in_space(profile), "PNG", icc_profile=profile)
    cut = decode(data, transform=lambda image: fit_picture(image, INFO)).rgb
    expected = np.asarray(fit_picture(colours(), INFO))
    assert difference(cut, expected) < 3
    inks = Image.new("CMYK", (60, 40), (255, 0, 0, 0))
    data = encoded(inks, "JPEG", icc_profile=cmyk_profile())
    cut = decode(data, transform=lambda image: fit_picture(image, INFO)).rgb
    assert cut.shape == (16, 16, 3)
    assert cut[8, 8, 1] == cut[8, 8].max()


def test_pillow_images_are_converted_too():
    profile = rgb_profile("exchanged")
    with Image.open(io.BytesIO(encoded(in_space(profile), "PNG", icc_profile=profile))) as image:
        assert difference(load_rgb(image), colours()) < 2


@pytest.mark.parametrize(("rule", "space", "converted"), [
    ("R03", 0xFFFF, True), ("R03", 2, True), ("R98", 0xFFFF, False), ("R03", 1, False),
    ("", 0xFFFF, False),
])  # fmt: skip
def test_a_camera_may_say_adobe_rgb_in_exif_alone(rule, space, converted):
    exif = Image.Exif()
    interop = {1: rule} if rule else {}
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ColorSpace: space, ExifTags.IFD.Interop: interop}
    picture = in_space(rgb_profile("Adobe"))
    data = encoded(picture, "JPEG", exif=exif, **OPTIONS["JPEG"])
    error = difference(decode(data).rgb, colours())
    assert (error < 3) == converted, error


def test_many_threads_and_many_profiles(monkeypatch):
    monkeypatch.setattr(colour, "_MAX_CACHED", 4)
    profiles = [rgb_profile("exchanged", 1.8 + step / 10) for step in range(8)]
    files = [encoded(in_space(profile), "PNG", icc_profile=profile) for profile in profiles]
    with ThreadPoolExecutor(8) as pool:
        for rgb in pool.map(lambda data: decode(data).rgb, files * 6):
            assert difference(rgb, colours()) < 3


def test_the_same_picture_in_two_spaces_is_found_as_the_same(tmp_path):
    profile = rgb_profile("exchanged")
    (tmp_path / "plain.png").write_bytes(encoded(colours()))
    (tmp_path / "p3.png").write_bytes(encoded(in_space(profile), "PNG", icc_profile=profile))
    (tmp_path / "wrong.png").write_bytes(encoded(in_space(profile), "PNG"))
    with Gallery.open(tmp_path, settings={"model": "tiny"}) as gallery:
        gallery.index()
        scores = {hit.path: hit.score for hit in gallery.search(tmp_path / "plain.png", k=3)}
    assert scores["p3.png"] > 0.995 > scores["wrong.png"]
