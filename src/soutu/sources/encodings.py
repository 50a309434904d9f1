"""From a text file's bytes to text, refusing to guess but naming the likely cure."""

from __future__ import annotations

import codecs

from soutu.errors import BadCaptions


def text_of(data: bytes, shown: str, encoding: str | None) -> str:
    """The text of ``data`` in ``encoding`` (None: UTF-8), without a byte order mark.

    ``shown`` names the file in messages. Raises ``BadCaptions``.
    """
    if encoding is None:
        likely = _wide_encoding(data)
        if likely:
            raise BadCaptions("captions-utf16", file=shown, encoding=likely)
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeError as error:
        raise _undecodable(data, error, shown, encoding) from None
    except (LookupError, ValueError):
        raise BadCaptions("captions-encoding-unknown", encoding=encoding) from None
    text = text.removeprefix("\ufeff")
    nul = text.find("\0")
    if nul >= 0:
        raise BadCaptions("captions-nul", file=shown, line=text.count("\n", 0, nul) + 1)
    return text


def _undecodable(data: bytes, error: UnicodeError, shown: str, encoding: str | None) -> BadCaptions:
    start = error.start if isinstance(error, UnicodeDecodeError) else 0
    line = data.count(b"\n", 0, start) + 1
    if encoding is not None:
        return BadCaptions("captions-encoding", file=shown, line=line, encoding=encoding)
    gbk = not _is_mostly_utf8(data) and _is_gb18030(data)
    code = "captions-gbk" if gbk else "captions-not-utf8"
    return BadCaptions(code, file=shown, line=line)


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether more long sequences are whole than damaged. Only those of three bytes and
    more speak: two bytes of GBK often pass for UTF-8 (一 is D2 BB, a Cyrillic letter)."""
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    return sum(letter >= "\u0800" for letter in text) - damaged > damaged


def _is_gb18030(data: bytes) -> bool:
    try:
        return any("\u4e00" <= letter <= "\u9fff" for letter in data.decode("gb18030"))
    except UnicodeDecodeError:
        return False


def _wide_encoding(data: bytes) -> str | None:
    """The UTF-16 or UTF-32 that the bytes look like, by mark or by where zeros stand."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Half the bytes of the ASCII header are zeros; in UTF-8 text none is.
    head = data[:16]
    if len(head) >= 4 and 0 not in head[::2] and not any(head[1::2]):
        return "utf-16-le"
    if len(head) >= 4 and not any(head[::2]) and 0 not in head[1::2]:
        return "utf-16-be"
    return None
