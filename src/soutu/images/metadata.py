"""Read when a picture was taken from EXIF, XMP and PNG texts, in the forms that programs write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from PIL import ExifTags

_TIME = re.compile(
    r"(?P<year>\d{4})[-:/.](?P<month> ?\d{1,2})[-:/.](?P<day> ?\d{1,2})"
    r"(?:(?:T|,? +)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?P<seconds>:\d{2}(?:[.,]\d{1,9})?)?"
    r"(?: ?(?P<half>[AP])\.?M\.?)?(?: ?(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}))?)?",
    re.IGNORECASE | re.ASCII,
)
_MONTHS = "janfebmaraprmayjunjulaugsepoctnovdec"
_MAIL_TIME = re.compile(  # the form of mails (RFC 1123), which the PNG standard recommends
    r"(?:[a-z]{3}, )?(?P<day>\d{1,2}) (?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
    r" (?P<year>\d{4}) (?P<rest>\d.*)",
    re.IGNORECASE | re.ASCII,
)
_ZONE = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d")
# Of what XMP says, exposure comes before creation, which of a scan is another day.
_XMP = tuple(
    re.compile(rb"%b(?:\s*=\s*[\"']|>)\s*([^\"'<>]{4,40}?)\s*[\"'<]" % name)
    for name in (
        rb"exif:DateTimeOriginal",
        rb"photoshop:DateCreated",
        rb"exif:DateTimeDigitized",
        rb"xmp:CreateDate",
    )
)
_MAX_XMP = 1_000_000  # bytes
CREATION_TIME = "Creation Time"  # the keyword of a PNG text


def exposure_time(exif: Mapping[int, object], xmp: object = b"", text: object = "") -> str:
    """Return when a picture was taken, as precisely as the first source tells that tells it.

    Parameters
    ----------
    exif
        The tags of the EXIF block: time of exposure, else of digitising.
    xmp
        The XMP packet, bytes or text.
    text
        What a PNG says under "Creation Time".

    Returns
    -------
    str
        "YYYY-MM-DDTHH:MM:SS", local, or its beginning ("YYYY-MM-DD") where no more is said,
        followed by the offset ("+08:00") if there is one; "" where nothing is said.
    """
    for time, offset in (
        (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
        (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    ):
        if taken := parse_time(exif.get(time), exif.get(offset)):
            return taken
    packet = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    if isinstance(packet, bytes) and packet:
        for pattern in _XMP:
            match = pattern.search(packet, 0, _MAX_XMP)
            if match and (taken := parse_time(match[1].decode("ascii", "replace"))):
                return taken
    return parse_time(text)


def parse_time(time: object, offset: object = None) -> str:
    """Return a time as ``exposure_time`` does; "" for what names no moment, as zeros do."""
    if not isinstance(time, str) or len(time) > 80:
        return ""
    time = time.strip(" \0\t\r\n")
    if mail := _MAIL_TIME.fullmatch(time):
        number = _MONTHS.find(mail["month"].lower()) // 3 + 1
        time = f"{mail['year']}-{number:02d}-{mail['day']} {mail['rest']}"
    match = _TIME.fullmatch(time)
    if match is None:
        return ""
    year, month, day, hour, minute, seconds, half, zone = match.groups()
    hours = int(hour or 0)
    if half:
        if not 1 <= hours <= 12:
            return ""
        hours = hours % 12 + 12 * (half in "Pp")
    second = int(seconds[1:3]) if seconds else 0
    try:
        moment = datetime(int(year), int(month), int(day), hours, int(minute or 0), second)
    except ValueError:  # cameras without a clock write zeros or blanks
        return ""
    if hour is None:
        return f"{moment:%Y-%m-%d}".rjust(10, "0")
    form = "%H:%M:%S" if seconds else "%H:%M"
    return f"{moment:%Y-%m-%d}".rjust(10, "0") + f"T{moment:{form}}" + _offset(zone or offset)


def _offset(zone: object) -> str:
    if not isinstance(zone, str):
        return ""
    zone = zone.strip(" \0").upper()
    if zone in ("Z", "UTC", "GMT"):
        return "+00:00"
    if re.fullmatch(r"[+-]\d{4}", zone):
        zone = f"{zone[:3]}:{zone[3:]}"
    return zone if _ZONE.fullmatch(zone) else ""
