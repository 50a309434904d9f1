"""When a picture was taken is told in many forms; those that name one moment are read."""

from __future__ import annotations

import os
from datetime import datetime

import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from soutu import Gallery
from soutu.images.decode import decode, read_header
from soutu.images.metadata import exposure_time, parse_time
from tests.pictures import encoded, needs, scene

FORMS = {
    "2025:01:14 18:31:30": "2025-01-14T18:31:30",
    "2025:01:14 18:31:30\0\0\0": "2025-01-14T18:31:30",
    "  2025:01:14 18:31:30 ": "2025-01-14T18:31:30",
    "2025:01:14 18:31:30+0000": "2025-01-14T18:31:30+00:00",
    "2025:01:14 18:31:30+08:00": "2025-01-14T18:31:30+08:00",
    "2025:01:14 18:31:30 -0330": "2025-01-14T18:31:30-03:30",
    "2025:01:14 18:31:30Z": "2025-01-14T18:31:30+00:00",
    "2025:01:14 18:31:30.123": "2025-01-14T18:31:30",
    "2025:01:14 18:31:30,5": "2025-01-14T18:31:30",
    "2025-01-14 18:31:30": "2025-01-14T18:31:30",
    "2025/01/14 18:31:30": "2025-01-14T18:31:30",
    "2025.01.14 18:31:30": "2025-01-14T18:31:30",
    "2025-01-14T18:31:30": "2025-01-14T18:31:30",
    "2025-01-14T18:31:30.25Z": "2025-01-14T18:31:30+00:00",
    "2025-01-14T18:31:30+09:00": "2025-01-14T18:31:30+09:00",
    "2025:01:14 18:31": "2025-01-14T18:31",
    "2025-01-14T18:31+01:00": "2025-01-14T18:31+01:00",
    "2025:01:14": "2025-01-14",
    "2025-1-4": "2025-01-04",
    "2025: 1:14  8:31:30": "2025-01-14T08:31:30",
    "2025:01:14 06:31:30 PM": "2025-01-14T18:31:30",
    "2025:01:14 12:00:00 am": "2025-01-14T00:00:00",
    "2025:01:14 12:00:00 p.m.": "2025-01-14T12:00:00",
    "Tue, 14 Jan 2025 18:31:30 +0100": "2025-01-14T18:31:30+01:00",
    "14 Jan 2025 18:31:30 GMT": "2025-01-14T18:31:30+00:00",
    "0987:01:02 03:04:05": "0987-01-02T03:04:05",
}
NOTHING = [
    "", "0000:00:00 00:00:00", "    :  :     :  :  ", "2014:00:00 00:15:00", "2014:13:01 00:00:00",
    "2014:02:30 00:00:00", "2025:01:14 24:00:00", "2025:01:14 18:60:00", "2025:01:14 18:31:60",
    "2025:01:14 13:00:00 PM", "25:01:14 18:31:30", "14.01.2025 18:31", "01/14/2025", "yesterday",
    "2025", "2025:01", "2025:01:14 18", "2025:01:14 noon", "2025:01:14 18:31:30 x", "x" * 10_000,
    "二〇二五年", "٢٠٢٥:٠١:١٤", "Tue, 99 Jan 2025 18:31:30 +0100", "Mon, 1 Jan 0000 00:00:00",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_a_form_that_names_a_moment_is_read(text):
    assert parse_time(text) == FORMS[text]


@pytest.mark.parametrize("text", NOTHING)
def test_what_names_no_moment_stays_unknown(text):
    assert parse_time(text) == ""


@pytest.mark.parametrize(
    ("offset", "taken"),
    [
        ("+08:00", "2025-01-14T18:31:30+08:00"), ("+0800", "2025-01-14T18:31:30+08:00"),
        ("Z", "2025-01-14T18:31:30+00:00"), ("+99:00", "2025-01-14T18:31:30"),
        (b"\xff", "2025-01-14T18:31:30"), (8, "2025-01-14T18:31:30"),
    ],
)  # fmt: skip
def test_the_offset_beside_the_time_counts(offset, taken):
    assert parse_time("2025:01:14 18:31:30", offset) == taken
    own = parse_time("2025:01:14 18:31:30-02:00", offset)
    assert own == "2025-01-14T18:31:30-02:00", "what the time itself says comes first"


@pytest.mark.parametrize("value", [None, 5, b"2025:01:14", ("2025:01:14",), 3.5])
def test_what_is_no_text_is_unknown(value):
    assert parse_time(value) == ""


def xmp(name, value, element=False):
    head = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
    if element:
        return f"{head}><{name}>{value}</{name}></rdf:Description></x:xmpmeta>".encode()
    return f'{head}{name}="{value}"/></x:xmpmeta>'.encode()


def test_the_first_source_that_tells_counts():
    original, digitised = ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized
    packet = xmp("xmp:CreateDate", "2003-01-01")
    assert exposure_time({original: "2001:01:01", digitised: "2002:01:01"}, packet) == "2001-01-01"
    assert exposure_time({digitised: "2002:01:01"}, packet, "2004-01-01") == "2002-01-01"
    zeros = {original: "0000:00:00 00:00:00", digitised: "    "}
    assert exposure_time(zeros, packet, "2004-01-01") == "2003-01-01"
    assert exposure_time({}, b"", "2004-01-01") == "2004-01-01"
    assert exposure_time({ExifTags.Base.DateTime: "2005:01:01 00:00:00"}) == "", "edited then"


@pytest.mark.parametrize("element", [True, False])
@pytest.mark.parametrize(
    "name", ["exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate"]
)
def test_xmp_is_read_in_both_of_its_forms(name, element):
    packet = xmp(name, "2017-03-04T05:06:07+08:00", element)
    assert exposure_time({}, packet) == "2017-03-04T05:06:07+08:00"
    assert exposure_time({}, packet.decode()) == "2017-03-04T05:06:07+08:00"
    assert exposure_time({}, xmp("xmp:ModifyDate", "2017-03-04", element)) == ""


def test_exposure_comes_before_creation_in_xmp():
    packet = xmp("xmp:CreateDate", "2020-01-01") + xmp("photoshop:DateCreated", "1950-01-01")
    assert exposure_time({}, packet) == "1950-01-01"


@pytest.mark.parametrize("packet", [b"exif:DateTimeOriginal=" * 40_000, b"<" * 900_000, b"\0" * 99])
def test_hostile_packets_take_no_time(packet):
    assert exposure_time({}, packet) == ""


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_xmp_is_found_in_every_format(form):
    needs(form)
    packet = xmp("photoshop:DateCreated", "2017-03-04T05:06:07")
    options = {"xmp": packet}
    if form == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", packet.decode())
        options = {"pnginfo": texts}
    elif form == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700] = packet
        tags.tagtype[700] = 1
        options = {"tiffinfo": tags}
    data = encoded(scene(), form, **options)
    assert decode(data).taken == "2017-03-04T05:06:07"
    assert read_header(data, "a").taken == "2017-03-04T05:06:07"


def test_a_png_tells_its_creation_time():
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Creation Time", "Fri, 01 Jan 2016 03:04:05 +0000")
    data = encoded(scene(), "PNG", pnginfo=texts)
    assert decode(data).taken == "2016-01-01T03:04:05+00:00"
    assert read_header(data, "a.png").taken == "2016-01-01T03:04:05+00:00"


@pytest.fixture
def gallery(tmp_path):
    """Three pictures: taken in 2018 as digitised, on a day of 2025, and at no time known."""
    for number, details in enumerate(
        [{0x9004: "2018:02:03 04:05:06"}, {0x9003: "2025:01:14"}, {0x9003: "0000:00:00 00:00:00"}]
    ):
        exif = Image.Exif()
        exif[ExifTags.IFD.Exif] = details
        picture = Image.new("RGB", (40, 30), (90 * number, 0, 0))
        file = tmp_path / f"{number}.jpg"
        file.write_bytes(encoded(picture, "JPEG", exif=exif))
        written = datetime(2020 + number, 6, 15, 12, 30, 45).timestamp()
        os.utime(file, (written, written))
    with Gallery.open(tmp_path, settings={"model": "tiny"}) as opened:
        opened.index()
        yield opened


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        ("taken >= 2010", "01"), ("taken = 2025-01-14", "1"), ("taken < 2020", "0"),
        ("taken > 2025-01-14", ""), ("taken >= 2025-01", "1"),
        ("modified >= 2021", "12"), ("modified = 2020-06-15", "0"), ("modified < 2021-06-15", "0"),
        ("modified <= 2021-06-15T12:30", "01"), ("modified > 2021-06", "2"),
        ("modified != 2021", "02"), ("modified = '2022-06-15 12:30:45'", "2"),
        ("modified in (2020, 2022)", "02"), ("not modified >= 2021", "0"),
        ("modified >= 2021 and taken >= 2010", "1"), ("modified >= 9999", ""),
        ("modified = 2021-13", ""), ("modified >= 0000", "012"),
    ],
)  # fmt: skip
def test_filters_find_them(gallery, where, paths):
    hits = gallery.search("red", k=9, where=where).hits
    assert sorted(hit.path for hit in hits) == [f"{number}.jpg" for number in paths]
