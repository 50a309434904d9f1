"""Options that several commands share."""

from __future__ import annotations

import click

gallery_option = click.option(
    "--gallery", "-g", metavar="FOLDER", help="The gallery: its folder, or one inside it."
)
index_option = click.option(
    "--index", "index_dir", metavar="DIR", help="Keep the index in DIR instead of in .soutu."
)
store_option = click.option(
    "--store", metavar="URL", help="Keep vectors in Milvus: milvus://HOST:19530/NAME or FILE.db."
)
model_option = click.option("--model", metavar="NAME", help="Name of a model, or path of a bundle.")
device_option = click.option(
    "--device", metavar="NAME", help="Where the model runs: auto, cpu, cuda, mps or coreml."
)
k_option = click.option("-k", type=int, metavar="N", help="Number of results (5).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
paths_option = click.option("--paths-only", is_flag=True, help="Print only paths, one per line.")
null_option = click.option(
    "--null", "-0", is_flag=True, help="With --paths-only: end each path with NUL, not a new line."
)
