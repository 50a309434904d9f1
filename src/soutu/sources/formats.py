"""Opening a picture by its content, in the formats Soutu reads and no others."""

from __future__ import annotations

from io import BytesIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from soutu.sources.extras import is_heic, open_heic


class _Tiff(TiffImagePlugin.TiffImageFile):
    def load_prepare(self) -> None:
        # Pillow repeats its own size check only where it makes the canvas itself.
        if self._im is None:
            size = getattr(self, "_tile_size", self.size)
            self.im = Image.new(self.mode, size, None).im
        super().load_prepare()


_READERS: tuple[type[ImageFile.ImageFile], ...] = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    _Tiff,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    PpmImagePlugin.PpmImageFile,
)


def format_of(prefix: bytes) -> str | None:
    """What a file that begins with ``prefix`` (64 bytes of it) is: Pillow's name of the format;
    None for what no reader here knows."""
    if is_heic(prefix):
        return "HEIF"
    for reader in _READERS:
        accepts = Image.OPEN[str(reader.format)][1]
        if accepts is not None and accepts(prefix[:16]) is True:
            return str(reader.format)
    return None


def open_picture(data: bytes, name: str) -> ImageFile.ImageFile | None:
    """Read the header of a picture; None if no reader knows the content. ``name`` is for messages.

    A reader that knows the content but not the rest raises as it likes.
    ``Image.open`` is left out on purpose. It warns of large pictures by a limit that
    belongs to the whole process, and neither that limit nor the warning filters can be
    changed for one thread alone; and it would try formats, such as PostScript, that
    run far more code than a picture is worth.
    """
    prefix, stream = data[:16], BytesIO(data)
    if is_heic(data[:64]):
        return open_heic(stream, name)
    for reader in _READERS:
        accepts = Image.OPEN[str(reader.format)][1]
        # A string is Pillow's way to say: mine, but I was built without that codec.
        if accepts is not None and accepts(prefix) is True:
            return reader(stream)
    return None
