"""Fingerprints of the words that expand queries: equal ones expand every query alike."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import ClassVar, Protocol

from soutu.errors import BadConfig, SoutuError
from soutu.query.gloss import NUMBERS, gloss, keyword_gloss, with_article
from soutu.query.lexicon import Lexicon, Sense, Token, built_in_lexicon
from soutu.text import EN, WORD, ZH, language, length, normalized, simplified
from soutu.types import ExpanderTrace, Variant

# Which of the proposed variants are searched for.
#
# A model that reads no Chinese makes noise of it: on drawn scenes and hand-written words
# ``tiny-en``
# had a right picture among the first ten for 0.94 with English alone and for 0.70 with the Chinese
# mixed in. One that reads Chinese may lose by English: ``tiny`` found the first picture for 0.84
# instead of 0.90 of the words, 0.80 instead of 0.89 of the phrases it was trained to understand
# (and for 0.87 instead of 0.63 of hand-written words, many of which it has never seen). What is on
# by
# default must not harm, so there the lexicon is left aside; ``fusion: mean`` takes everything
# (benchmarks/results/expansion.json).


AUTO = "auto"
NOT_READ = "not-read"  # the model was not trained on that language
NOT_NEEDED = "not-needed"  # the model reads the query as it stands
TOO_MANY = "too-many"  # others weigh more
SWITCHED_OFF = "switched-off"  # a person has chosen others
CHOSEN = "chosen"  # the source of what a person added, and a way to fuse: what was chosen, weighed


def override_variants(said: Sequence[Variant], wanted: Sequence[Variant]) -> tuple[Variant, ...]:
    """``said``, the variants of all terms, as a person ``wanted`` them: just those, with their
    weights, and the others switched off; what nobody had proposed comes last. A term of which
    nothing is wanted keeps its own text."""
    weights = {(one.term, one.text): one.weight for one in wanted}
    terms = {one.term for one in wanted}
    found = [
        replace(one, weight=weights.pop((one.term, one.text)), unused="")
        if (one.term, one.text) in weights
        else one
        if one.term not in terms and not one.unused and one.source == ORIGINAL
        else replace(one, unused=one.unused or SWITCHED_OFF)
        for one in said
    ]
    added = (Variant(text, weight, CHOSEN, term) for (term, text), weight in weights.items())
    return (*found, *added)


def select_variants(said: Sequence[Variant], languages: Sequence[str]) -> tuple[Variant, ...]:
    """``said`` (the variants of one term, the original first), those not to be searched for marked
    with the reason. ``languages`` are those the model reads; none: not known, all count.
    At least one is left."""
    if not languages:
        return tuple(said)
    reads = [(EN if language(variant.text) == EN else ZH) in languages for variant in said]
    if reads[0]:  # rules are what somebody asked for; a translation only helps out
        return tuple(
            replace(v, unused=NOT_NEEDED) if v.source.startswith((LEXICON, TRANSLATION)) else
            v if read else replace(v, unused=NOT_READ)
            for v, read in zip(said, reads, strict=True)
        )  # fmt: skip
    if not any(reads):
        return tuple(said)
    return tuple(
        v if read else replace(v, unused=NOT_READ) for v, read in zip(said, reads, strict=True)
    )


# Query expansion: one text becomes several, each with a weight and its source.


ORIGINAL, RULES, LEXICON, TRANSLATION = "original", "rules", "lexicon", "translation"
MAX_VARIANTS = 12  # variants of one term
_LONGEST = 100  # characters; a longer text says more than a dictionary can repeat
_ENOUGH = 0.5  # of a phrase's characters must be known for its English to be worth saying
_PER_SENSE = 3


@dataclass(frozen=True)
class Weights:
    """What the lexicon's variants count beside its first rendering, 1: senses after the first
    (``later``), what the words say without grammar (``listed``), other Chinese words."""

    later: float = 0.5
    listed: float = 0.5
    synonym: float = 0.5


WEIGHTS = Weights()


class Expander(Protocol):
    """Proposes further texts for a query. One contract suite runs over all of them."""

    @property
    def name(self) -> str:
        """What it is called where its cost and its faults are shown."""
        ...

    def expand(self, text: str) -> list[Variant]:
        """What else to search for, best first; empty when there is nothing to add. The same
        text gives the same answer; every variant has text, a weight above 0 and a source. What
        depends on anything outside may raise a SoutuError."""
        ...


@dataclass(frozen=True)
class RuleExpander:
    """Looks the whole query up in a table of rules; the table says where each came from."""

    rules: Mapping[str, Sequence[Variant]]
    name: ClassVar[str] = RULES

    def expand(self, text: str) -> list[Variant]:
        return list(self.rules.get(text.strip(), ()))


@dataclass(frozen=True)
class LexiconExpander:
    """Says Chinese in English, word by word or as a caption, and with other Chinese words."""

    own: Lexicon | None = None  # None: the package's, read when it is first needed
    weights: Weights = WEIGHTS
    name: ClassVar[str] = LEXICON

    @property
    def lexicon(self) -> Lexicon:
        return self.own or built_in_lexicon()

    def expand(self, text: str) -> list[Variant]:
        if language(text) == EN or len(text) > _LONGEST:
            return []
        word, tokens = self.segment(text)
        if senses := self.lexicon.lookup(word):
            return list(_renderings(word, senses, self.weights))
        if self.lexicon.covers(tokens) < _ENOUGH or not any(token.senses for token in tokens):
            return []
        said = (gloss(tokens), 1.0), (keyword_gloss(tokens), self.weights.listed)
        return [Variant(caption, weight, LEXICON) for caption, weight in said if caption]

    def segment(self, text: str) -> tuple[str, list[Token]]:
        """The text as it is known best: as it stands, or in simplified characters."""
        word = normalized(text)
        tokens = self.lexicon.segment(word)
        if self.lexicon.lookup(word) or self.lexicon.covers(tokens) == 1:
            return word, tokens
        word = simplified(word)
        return word, self.lexicon.segment(word)


def _renderings(word: str, senses: Sequence[Sense], weights: Weights) -> Iterator[Variant]:
    """English by sense, the most common first and heaviest, then other Chinese words."""
    for place, sense in enumerate(senses):
        source = f"{LEXICON}:{sense.label}" if sense.label else LEXICON
        for english in sense.english[:_PER_SENSE]:
            yield Variant(english, weights.later if place else 1.0, source)
    for synonym in (senses[0].word, *senses[0].synonyms)[: _PER_SENSE - 1]:
        if synonym != word:
            yield Variant(synonym, weights.synonym, LEXICON)


def deduplicate(found: Iterable[Variant]) -> list[Variant]:
    """Each text once, as it was first said; models fold case."""
    kept: dict[str, Variant] = {}
    for variant in found:
        kept.setdefault(variant.text.casefold(), variant)
    return list(kept.values())


def variants(text: str, expander: Expander | None) -> tuple[Variant, ...]:
    """The original query first, then what the expander proposes, without repeats."""
    original = Variant(text.strip())
    return tuple(deduplicate((original, *(expander.expand(original.text) if expander else ()))))


# Expansion rules: ``queries: {金毛: [golden retriever dog, …]}``, one's own in YAML.
#
# The package's own are JSON, which costs a search no YAML parser (8 ms from a cold start).


Rules = dict[str, tuple[Variant, ...]]


def built_in_rules() -> object:
    """The package's own rules, not yet understood."""
    file = resources.files("soutu") / "query" / "data" / "expansions.json"
    return json.loads(file.read_text(encoding="utf-8"))


def load_rules(files: Iterable[Path]) -> RuleExpander:
    """The built-in rules with each of ``files`` laid over them, key by key.

    Raises BadConfig naming the file, the key and the cure.
    """
    merged = _understood(built_in_rules(), "built-in")
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as fault:
            raise BadConfig("rules-unreadable", file=file, fault=fault) from fault
        merged.update(_read(text, str(file)))
    return RuleExpander(merged)


def _read(text: str, source: str) -> Rules:
    import yaml

    try:
        loaded = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as fault:
        raise BadConfig("rules-yaml", file=source, fault=" ".join(str(fault).split())) from fault
    return _understood(loaded, source)


def _understood(loaded: object, source: str) -> Rules:
    said = loaded if isinstance(loaded, dict) else {}
    queries = said.get("queries")
    if not isinstance(queries, dict) or set(said) != {"queries"}:
        raise BadConfig("rules-form", file=source)
    return {_key(key, source): _variants(key, value, source) for key, value in queries.items()}


def _key(key: object, source: str) -> str:
    if not isinstance(key, str) or not key.strip():
        raise BadConfig("rules-key", file=source, key=key)
    return key.strip()


def _variants(key: object, value: object, source: str) -> tuple[Variant, ...]:
    """A list of texts, or of {text, weight}."""
    if not isinstance(value, list):
        raise BadConfig("rules-value", file=source, key=key, value=value)
    found = []
    for item in value:
        fields = item if isinstance(item, dict) else {"text": item}
        text, weight = fields.get("text"), fields.get("weight", 1.0)
        usable = isinstance(text, str) and text.strip() and set(fields) <= {"text", "weight"}
        if not usable or not isinstance(weight, (int, float)) or not 0 < weight <= 100:
            raise BadConfig("rules-value", file=source, key=key, value=item)
        found.append(Variant(str(text).strip(), float(weight), source))
    return tuple(found)


# Prompts such as "a photo of a cat": what CLIP was trained on are captions of photos, not words.
#
# They are off by default: the embedded models were trained on drawn scenes and find less with them
# (``tiny-en``, hand-written words: mAP 0.55 without, 0.43 with; benchmarks/results/expansion.json).


TEMPLATES = "templates"
_PLAIN, _WITH_ARTICLE = "{X}", "{a X}"
_DETERMINED = ("a", "an", "the", "some", "many", "my", *NUMBERS)
_SAID = ("照片", "图片", "相片", "photo", "picture", "image")  # the text is a prompt already


@dataclass(frozen=True)
class Templates:
    """Says what is short as a caption in its own language; what is longer is one already."""

    name: ClassVar[str] = TEMPLATES

    def expand(self, text: str) -> list[Variant]:
        """For a word, and what an article or a number makes a phrase. They share a weight of 1."""
        text = text.strip()
        # What cannot be printed, or holds no letter, is nothing that a photo shows.
        if not text.isprintable() or not any(map(str.isalnum, text)):
            return []
        if length(_bare(text)) != WORD or any(word in text.casefold() for word in _SAID):
            return []
        own = _built_in()[EN if language(text) == EN else ZH]
        return [Variant(_filled(one, text), 1 / len(own), TEMPLATES) for one in own]


def _bare(text: str) -> str:
    """Without the article or number that it begins with."""
    first, _, rest = text.partition(" ")
    return rest if rest and first.casefold() in _DETERMINED else text


def _filled(template: str, text: str) -> str:
    mark = _WITH_ARTICLE if _WITH_ARTICLE in template else _PLAIN
    before, _, after = template.partition(mark)
    noun = with_article(text) if mark == _WITH_ARTICLE and _bare(text) == text else text
    return f"{before}{noun}{after}"


@cache
def _built_in() -> dict[str, list[str]]:
    import yaml

    file = resources.files("soutu") / "query" / "data" / "templates.yaml"
    loaded: dict[str, list[str]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


# All expanders together: asked in turn, chosen from, capped; one that fails is only reported.


@dataclass(frozen=True)
class ExpanderPipeline:
    """Of ``first``, the first that has something to say is heard, so that a rule of one's own
    takes the place of the lexicon; all of ``further`` are asked as well. ``templates`` are laid
    over what is searched for."""

    first: Sequence[Expander]
    further: Sequence[Expander] = ()
    templates: Templates | None = None
    name: ClassVar[str] = "chain"

    def expand(self, text: str) -> list[Variant]:
        said, _ = propose_variants(text, self)
        return [variant for variant in said[1:] if not variant.unused]

    def ask(self, text: str) -> tuple[list[Variant], list[ExpanderTrace]]:
        """All that is proposed for ``text``, and how asking went. Never raises."""
        found: list[Variant] = []
        ran: list[ExpanderTrace] = []
        for expander in self.first:
            proposed, report = _run_expander(expander, text)
            found += proposed
            ran.append(report)
            if proposed:
                break
        for expander in self.further:
            proposed, report = _run_expander(expander, text)
            found += proposed
            ran.append(report)
        return found, ran


def propose_variants(
    text: str, expander: Expander | None, languages: Sequence[str] = ()
) -> tuple[tuple[Variant, ...], tuple[ExpanderTrace, ...]]:
    """The variants of one term, the original first and each text once, and the expanders that were
    asked. What is not to be searched for is marked with the reason: ``languages`` are those that
    the model reads (none: not known, all count), and at most ``MOST`` are added to the original."""
    chain = (
        expander
        if isinstance(expander, ExpanderPipeline)
        else ExpanderPipeline((expander,) if expander else ())
    )
    original = Variant(text.strip())
    found, ran = chain.ask(original.text)
    said = _cap_variants(select_variants(deduplicate((original, *found)), languages))
    if chain.templates:
        said, report = _apply_templates(said, chain.templates)
        ran.append(report)
    return tuple(said), tuple(ran)


def merge_traces(reports: Iterable[ExpanderTrace]) -> tuple[ExpanderTrace, ...]:
    """One report for each expander, over all the terms that it was asked for."""
    found: dict[str, ExpanderTrace] = {}
    for ran in reports:
        if known := found.get(ran.name):
            ms, proposed = round(known.ms + ran.ms, 3), known.proposed + ran.proposed
            ran = ExpanderTrace(ran.name, ms, proposed, known.error or ran.error)
        found[ran.name] = ran
    return tuple(found.values())


def _run_expander(expander: Expander, text: str) -> tuple[list[Variant], ExpanderTrace]:
    start, fault = time.perf_counter(), None
    proposed: list[Variant] = []
    try:
        proposed = expander.expand(text)
    except SoutuError as wrong:
        fault = wrong
    except Exception as wrong:  # a search must not depend on what only helps it
        told = " ".join(f"{type(wrong).__name__}: {wrong}".split())
        fault = SoutuError("expander-broke", fault=told[:200])
    return proposed, ExpanderTrace(expander.name, _since(start), len(proposed), fault)


def _cap_variants(said: Sequence[Variant]) -> list[Variant]:
    """The heaviest are kept, the earlier of equals; the original always."""
    used = [at for at, variant in enumerate(said) if at and not variant.unused]
    beyond = set(sorted(used, key=lambda at: -said[at].weight)[MAX_VARIANTS:])
    return [replace(v, unused=TOO_MANY) if at in beyond else v for at, v in enumerate(said)]


def _apply_templates(
    said: list[Variant], templates: Templates
) -> tuple[list[Variant], ExpanderTrace]:
    """Each variant that is searched for, while there is room, shares its weight with its
    templates: what templates a variant has does not change how much it counts."""
    start, added = time.perf_counter(), 0
    known = {variant.text.casefold() for variant in said}
    room = MAX_VARIANTS - sum(not variant.unused for variant in said[1:])
    kept: list[Variant] = []
    for variant in said:
        new = [] if variant.unused else templates.expand(variant.text)
        new = [one for one in deduplicate(new) if one.text.casefold() not in known]
        if not new or len(new) > room:
            kept.append(variant)
            continue
        share = variant.weight / (len(new) + 1)
        kept += (replace(one, weight=share) for one in (variant, *new))
        known |= {one.text.casefold() for one in new}
        room -= len(new)
        added += len(new)
    return kept, ExpanderTrace(templates.name, _since(start), added)


def _since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)


BUILT_IN_WORDS, RULES_FILE, LEXICON_FILE = "package", "rules", "lexicon"


def word_hashes(rules: Path | None, lexicon: Path | None) -> dict[str, str]:
    """By what they belong to: the package's own words, a file of rules, a file of words; ""
    for a file that is not there."""
    return {
        BUILT_IN_WORDS: _package(),
        RULES_FILE: _of_file(rules),
        LEXICON_FILE: _of_file(lexicon),
    }


@cache
def _package() -> str:
    folder = resources.files("soutu") / "query" / "data" / "lexicon"
    digest = blake2b(json.dumps(built_in_rules()).encode(), digest_size=8)
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".tsv"):
            digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _of_file(file: Path | None) -> str:
    try:
        return blake2b(file.read_bytes(), digest_size=8).hexdigest() if file else ""
    except OSError:
        return ""
