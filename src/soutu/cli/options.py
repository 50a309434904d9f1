"""Options that several commands share, and opening the gallery that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soutu.cli.language import prefer_language

if TYPE_CHECKING:
    from soutu.gallery import Gallery

gallery_option = click.option(
    "--gallery", "-g", metavar="FOLDER", help="Where the pictures are (or above)."
)
index_option = click.option(
    "--index", "index_dir", metavar="DIR", help="Keep the index there instead of in .soutu."
)
store_option = click.option(
    "--store", metavar="URL", help="Vectors in Milvus: milvus://HOST:19530/NAME or FILE.db."
)
model_option = click.option("--model", metavar="NAME", help="Model name, or the path of a bundle.")
device_option = click.option("--device", metavar="NAME", help="auto, cpu, cuda, mps or coreml.")
k_option = click.option("-k", type=int, metavar="N", help="How many results (5).")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on one line.")
paths_option = click.option("--paths-only", is_flag=True, help="Only the paths, one a line.")
null_option = click.option(
    "--null", "-0", is_flag=True, help="With --paths-only: NUL after each path."
)

Options = dict[str, object]


def open_gallery(
    folder: str | None, index_dir: str | None, settings: Options, use: str = "some"
) -> Gallery:
    from soutu.gallery import Gallery, Use

    gallery = Gallery.open(folder, index=index_dir, settings=settings, use=Use(use))
    prefer_language(gallery.config.lang)
    return gallery
