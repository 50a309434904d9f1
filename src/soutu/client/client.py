"""The API as Python sees it: the same questions and the same results as ``Gallery``'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from soutu.client.answers import search_result
from soutu.client.asking import Body, Server
from soutu.errors import BadImage

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from soutu.types import Rgb, SearchResult, Term, Variant

BASE = "/api/v1"


class Further(TypedDict, total=False):
    """What else a search may say: ``offset`` hits are left out (the next page), ``expand`` off
    searches for the text alone, ``variants`` are searched for instead of what would be proposed,
    ``terms`` instead of a text, ``image_id`` for pictures like an indexed one."""

    offset: int
    expand: bool
    variants: Sequence[Variant]
    terms: Sequence[Term]
    image_id: int


@dataclass(frozen=True)
class Client:
    """``Client("http://127.0.0.1:8765").search("灰猫")``. ``token``: where the server asks for one;
    ``timeout`` in seconds, for one question altogether. A busy server is asked again for as long.

    Raises what ``Gallery`` would for a wrong question (BadInput and below), and RemoteUnavailable
    where there is no answer to it. Paths in results are those of the server's gallery."""

    url: str
    token: str = field(default="", repr=False)
    timeout: float = 30.0

    def search(
        self,
        text: str | None = None,
        *,
        image: str | Path | Rgb | None = None,
        k: int = 5,
        where: str | None = None,
        min_confidence: float | None = None,
        **further: Unpack[Further],
    ) -> SearchResult:
        """The ``k`` pictures nearest to a text, or to a picture (a file here, or RGB uint8
        (h, w, 3)): ``Gallery.search``."""
        asked: dict[str, object] = {
            "text": text, "k": k, "where": where, "min_confidence": min_confidence, **further,
            "vector": True,
        }  # fmt: skip
        if "variants" in further:
            asked["variants"] = [_variant(one) for one in further["variants"]]
        if "terms" in further:
            asked["terms"] = [_term(one) for one in further["terms"]]
        asked = {name: value for name, value in asked.items() if value is not None}
        body = Body.json(asked) if image is None else Body.form(_bytes(image), request=asked)
        return search_result(self._server.ask("POST", f"{BASE}/search", body), self.url)

    def captions(self, image: str | Path | Rgb, *, k: int = 5) -> SearchResult:
        """The ``k`` captions nearest to a picture: ``Gallery.captions``."""
        body = Body.form(_bytes(image), k=k, vector=True)
        return search_result(self._server.ask("POST", f"{BASE}/captions", body), self.url)

    def stats(self) -> Mapping[str, object]:
        """What the server has, as it says it (docs/api.md)."""
        return self._server.ask("GET", f"{BASE}/stats")

    @property
    def _server(self) -> Server:
        return Server(self.url, self.token, self.timeout)


def _variant(variant: Variant) -> dict[str, object]:
    return {"text": variant.text, "weight": variant.weight, "term": variant.term}


def _term(term: Term) -> dict[str, object]:
    """The value of an image term is the picture's id."""
    known = asdict(term)
    named = {"text": term.value} if known["kind"] == "text" else {"image_id": int(term.value)}
    return {**named, "weight": term.weight}


def _bytes(image: str | Path | Rgb) -> bytes:
    if isinstance(image, (str, Path)):
        try:
            return Path(image).expanduser().read_bytes()
        except (OSError, ValueError) as fault:
            told = getattr(fault, "strerror", None) or str(fault)
            raise BadImage("client-picture", path=image, fault=told) from fault
    from io import BytesIO

    from PIL import Image

    kept = BytesIO()
    Image.fromarray(image).save(kept, "PNG")
    return kept.getvalue()
