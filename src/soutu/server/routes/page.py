"""The web page: files of the package, by their names and no others."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from importlib import resources

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from soutu.server.problems import NotFound

router = APIRouter(include_in_schema=False)
KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}


@cache
def files() -> dict[str, tuple[bytes, str, str]]:
    """Content, kind and ETag of each."""
    found = {}
    for file in (resources.files("soutu") / "server" / "static").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind:
            data = file.read_bytes()
            found[file.name] = data, kind, f'"{blake2b(data, digest_size=12).hexdigest()}"'
    return found


@router.get("/")
async def page(request: Request) -> Response:
    return _file(request, "index.html")


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    if name not in files():
        raise NotFound("server-nowhere", path=request.url.path[:200])
    data, kind, etag = files()[name]
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(data, media_type=kind, headers={"ETag": etag})
