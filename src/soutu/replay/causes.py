"""Why a search answers otherwise than it did: what has changed since, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from soutu.journal import Setup
from soutu.journal.reading import Logged
from soutu.query.expand import TRANSLATION
from soutu.query.fingerprints import LEXICON, PACKAGE, RULES
from soutu.store.base import Change
from soutu.types import IndexState, ModelCard, Variant
from soutu.version import VERSION

MODEL, INDEX, EXPANSION, SETTING = "model", "index", "expansion", "settings"
REFERENCE, SOUTU, PICTURE, FAULT, UNKNOWN = "reference", "version", "picture", "fault", "unknown"
WORDS = (PACKAGE, RULES, LEXICON)
# Settings that name what lies outside the gallery, and whose variants they change.
OUTSIDE = {"translator": TRANSLATION, "llm": "llm", "llm_model": "llm", "expansions": RULES}
_ANY = (TRANSLATION, "llm", RULES)
_SHOWN = 3  # paths that a cause names


@dataclass(frozen=True)
class Cause:
    """``kind`` is one of this module's names; ``what`` says which exactly, ``before`` and
    ``now`` how it was and is. For an index ``count`` is how many were added and so on, and
    ``paths`` are the first of them."""

    kind: str
    what: str
    before: str | IndexState = ""
    now: str | IndexState = ""
    count: int = 0
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Now:
    """What a replay runs on: the model, the index, and what both depend on. ``changes(after)``:
    what the runs after a generation did."""

    card: ModelCard
    state: IndexState
    reference: str
    setup: Setup
    changes: Callable[[int], Sequence[Change]]

    def changed(self, logged: Logged) -> Iterator[Cause]:
        """All that is otherwise than it was for ``logged``, whether it matters or not."""
        for of in (self.model, self.index, self.words, self.settings, self.measured, self.version):
            yield from of(logged)

    def model(self, logged: Logged) -> Iterator[Cause]:
        told = {"name": self.card.name, "space": self.card.space}
        told["fingerprint"] = self.card.fingerprint
        if logged.model["space"] != self.card.space:
            yield Cause(MODEL, "space", _named(logged.model), _named(told))
        elif logged.model["fingerprint"] != self.card.fingerprint:
            before, now = (_precise(logged.model.get("precision")), _precise(self.setup.precision))
            yield Cause(
                MODEL,
                "weights",
                f"{_named(logged.model)} {_short(logged.model['fingerprint'])}{before}",
                f"{_named(told)} {_short(told['fingerprint'])}{now}",
            )

    def index(self, logged: Logged) -> Iterator[Cause]:
        """What was done to the index since; runs that only gave another model its vectors are no
        change of this one's answers."""
        before, now = logged.index, self.state
        if before.generation > now.generation:
            yield Cause(INDEX, "older", before, now)
            return
        done: Counter[str] = Counter()
        paths: dict[str, list[str]] = {}
        same_space = before.space == now.space
        for change in self.changes(before.generation):
            if change.kind == "vectors" and not (same_space and change.other == now.space):
                continue
            done[change.kind] += 1
            paths.setdefault(change.kind, []).append(change.path or change.other)
        for kind, count in done.items():
            first = tuple(paths[kind][:_SHOWN])
            yield Cause(INDEX, kind, before, now, count, first)
        moved = (before.images, before.captions) != (now.images, now.captions)
        if same_space and before.generation == now.generation and moved:
            yield Cause(INDEX, "other", before, now)

    def words(self, logged: Logged, of: Collection[str] = WORDS) -> Iterator[Cause]:
        for name in WORDS:
            before, now = logged.words.get(name), self.setup.words.get(name)
            if name in of and before is not None and now is not None and before != now:
                yield Cause(EXPANSION, name, str(before) or "-", now or "-")

    def settings(self, logged: Logged, of: Collection[str] = _ANY) -> Iterator[Cause]:
        """Those that a replay does not take from the log, as they name what lies outside."""
        for name in OUTSIDE:
            before, now = logged.settings.get(name), self.setup.settings.get(name)
            if name in logged.settings and OUTSIDE[name] in of and before != now:
                yield Cause(SETTING, name, _said(before), _said(now))

    def variants(self, logged: Logged, now: Sequence[Variant]) -> Iterator[Cause]:
        """Why a query became other variants, by who proposed those that differ."""
        of = origins(logged.variants, now)
        found = [*self.words(logged, of), *self.settings(logged, of)]
        yield from found or [*self.words(logged), *self.settings(logged)]

    def measured(self, logged: Logged) -> Iterator[Cause]:
        """Only texts have a reference, and only from schema 2 on it is told."""
        texts = all(term.kind == "text" for term in logged.query.terms)
        if not (texts and logged.query.terms and logged.k and logged.target == "images"):
            return
        if logged.reference != self.reference:
            yield Cause(REFERENCE, "reference", logged.reference or "-", self.reference or "-")

    def version(self, logged: Logged) -> Iterator[Cause]:
        if logged.soutu != VERSION:
            yield Cause(SOUTU, "soutu", logged.soutu or "schema 1", VERSION)


def origins(before: Sequence[Variant], now: Sequence[Variant]) -> set[str]:
    """Who proposed the variants that only one of two searches had; of a term that has rules in
    either, these, as the lexicon is asked only where there are none."""
    texts = [{(v.term, v.text, v.weight): v.source for v in said} for said in (before, now)]
    by_term: dict[int, set[str]] = {}
    for one, other in (texts, texts[::-1]):
        for said in one.keys() - other.keys():
            by_term.setdefault(said[0], set()).add(_origin(one[said]))
    found: set[str] = set()
    for known in by_term.values():
        found |= known - {LEXICON} if RULES in known else known
    return found | ({PACKAGE} if found & {RULES, LEXICON} else set())


def _origin(source: str) -> str:
    """A rule's source is its file."""
    name = source.split(":")[0]
    return name if name in (LEXICON, TRANSLATION, "llm", "templates", "original") else RULES


def _named(model: Mapping[str, object]) -> str:
    return f"{model['name']} ({model['space']})"


def _precise(precision: object) -> str:
    if not isinstance(precision, Mapping) or not precision:
        return ""
    return f" [{', '.join(f'{name} {value}' for name, value in sorted(precision.items()))}]"


def _short(fingerprint: object) -> str:
    return str(fingerprint)[:12]


def _said(value: object) -> str:
    return "-" if value is None else str(value)
