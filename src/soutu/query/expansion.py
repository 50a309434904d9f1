"""Expand a text into weighted variants: own rules, the lexicon, templates, other expanders.

``propose_variants`` is what a search calls for each of its text terms.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import ClassVar, Protocol

from soutu.errors import BadConfig, SoutuError
from soutu.query.gloss import NUMBERS, gloss, keyword_gloss, with_article
from soutu.query.lexicon import Lexicon, built_in_lexicon
from soutu.text import CHINESE, EN, WORD, ZH, language, length, normalize
from soutu.types import ExpanderTrace, Variant

# Sources of variants.
ORIGINAL, RULES, LEXICON, TRANSLATION = "original", "rules", "lexicon", "translation"
TEMPLATES = "templates"
CHOSEN = "chosen"  # added by a person; also how a search with such variants was fused
INHERITED = "built-in"  # the rules of the reference workspace

# Why a variant is not searched for.
NOT_READ = "not-read"  # the model was not trained on its language
NOT_NEEDED = "not-needed"  # the model reads the query as it stands
TOO_MANY = "too-many"  # others weigh more
SWITCHED_OFF = "switched-off"  # a person has chosen others

MAX_VARIANTS = 12  # of one term, besides the original

# Whose hash it is, in the log.
BUILT_IN_WORDS, RULES_FILE, LEXICON_FILE = "package", "rules", "lexicon"

_MAX_TEXT_LENGTH = 100  # characters; a longer text says more than a dictionary can repeat
_MIN_COVERAGE = 0.5  # of a phrase's characters, for its English to be worth proposing
_TEXTS_PER_SENSE = 3
_MAX_SYNONYMS = 2
_TEMPLATES = {
    ZH: ("一张{text}的照片", "{text}的图片"),
    EN: ("a photo of {phrase}", "a picture of {text}"),
}
_DETERMINERS = ("a", "an", "the", "some", "many", "my", *NUMBERS)
_PROMPT_WORDS = ("照片", "图片", "相片", "photo", "picture", "image")  # of a text that is a prompt


@dataclass(frozen=True)
class Weights:
    """Weights of the lexicon's variants; the first sense counts 1."""

    later: float = 0.5  # senses after the first
    listed: float = 0.5  # a phrase's English without grammar
    synonym: float = 0.5  # other Chinese words


WEIGHTS = Weights()


class Expander(Protocol):
    """Proposes further texts for a query. One contract suite runs over all expanders.

    An entry point of the group ``soutu.expanders`` names a function without arguments, or a class,
    that returns one; the setting ``expanders`` lists those to run.
    """

    @property
    def name(self) -> str:
        """Name the expander where its time and its errors are shown."""
        ...

    def expand(self, text: str) -> list[Variant]:
        """Propose variants of ``text``, best first; empty where there is nothing to add.

        The same text gives the same variants; each has text, a weight above 0 and a source.

        Raises
        ------
        SoutuError
            For what depends on anything outside.
        """
        ...


@dataclass(frozen=True)
class RuleExpander:
    """Looks the whole text up in a table of variants, whose sources name the file."""

    rules: Mapping[str, Sequence[Variant]]
    name: ClassVar[str] = RULES

    def expand(self, text: str) -> list[Variant]:
        """Return the variants of the rule for ``text``."""
        return list(self.rules.get(text.strip(), ()))


def load_rules(files: Iterable[Path], *, inherited: bool = False) -> RuleExpander:
    """Load the rules of YAML ``files``, a later one over those before it, key by key.

    With ``inherited`` they lie over those of the reference workspace, which were tuned to its few
    pictures (猫 → gray cat) and applied to every gallery in Soutu 0.1.

    A file looks like ``queries: {金毛: [golden retriever dog, {text: golden hair, weight: 2}]}``.
    Raise BadConfig, naming the file and the key, for one of another form.
    """
    rules = _parse_rules(_inherited_rules(), INHERITED) if inherited else {}
    for file in files:
        import yaml  # 8 ms, which most galleries need not pay

        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig("rules-unreadable", file=file, error=error) from error
        try:
            loaded = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise BadConfig("rules-yaml", file=file, error=" ".join(str(error).split())) from error
        rules.update(_parse_rules(loaded, str(file)))
    return RuleExpander(rules)


def _inherited_rules() -> object:
    file = resources.files("soutu") / "query" / "data" / "expansions.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _parse_rules(loaded: object, source: str) -> dict[str, list[Variant]]:
    queries = loaded.get("queries") if isinstance(loaded, dict) and len(loaded) == 1 else None
    if not isinstance(queries, dict):
        raise BadConfig("rules-form", file=source)
    rules: dict[str, list[Variant]] = {}
    for key, items in queries.items():
        if not isinstance(key, str) or not key.strip():
            raise BadConfig("rules-key", file=source, key=key)
        if not isinstance(items, list):
            raise BadConfig("rules-value", file=source, key=key, value=items)
        variants = rules[key.strip()] = []
        for item in items:
            fields = item if isinstance(item, dict) else {"text": item}
            text, weight = fields.get("text"), fields.get("weight", 1.0)
            valid = isinstance(text, str) and text.strip() and set(fields) <= {"text", "weight"}
            if not valid or not isinstance(weight, (int, float)) or not 0 < weight <= 100:
                raise BadConfig("rules-value", file=source, key=key, value=item)
            variants.append(Variant(str(text).strip(), float(weight), source))
    return rules


@dataclass(frozen=True)
class LexiconExpander:
    """Translates Chinese word by word, as captions, and into other Chinese words.

    ``user_lexicon`` takes the place of the package's lexicon, which is read when first needed.
    """

    user_lexicon: Lexicon | None = None
    weights: Weights = WEIGHTS
    name: ClassVar[str] = LEXICON

    def expand(self, text: str) -> list[Variant]:
        """Translate a word sense by sense, the most common first; a phrase as a caption."""
        if not CHINESE.search(text) or len(text) > _MAX_TEXT_LENGTH:
            return []
        text, lexicon = normalize(text), self.user_lexicon or built_in_lexicon()
        tokens = lexicon.segment(text)
        variants = []
        if len(tokens) == 1 and (senses := tokens[0].senses):
            for rank, sense in enumerate(senses):
                source = f"{LEXICON}:{sense.label}" if sense.label else LEXICON
                weight = self.weights.later if rank else 1.0
                variants += [Variant(e, weight, source) for e in sense.english[:_TEXTS_PER_SENSE]]
            synonyms = (senses[0].word, *senses[0].synonyms)[:_MAX_SYNONYMS]
            weight = self.weights.synonym
            variants += [Variant(s, weight, LEXICON) for s in synonyms if s != tokens[0].text]
        elif lexicon.coverage(tokens) >= _MIN_COVERAGE and any(t.senses for t in tokens):
            captions = (gloss(tokens), 1.0), (keyword_gloss(tokens), self.weights.listed)
            variants += [Variant(text, weight, LEXICON) for text, weight in captions if text]
        return variants


@dataclass(frozen=True)
class Templates:
    """Puts short texts into prompts such as "a photo of a cat", in their own language.

    CLIP was trained on captions of photos, not on words. Templates are off by default: the embedded
    models were trained on drawn scenes and find less with them (``tiny-en``, hand-written words:
    mAP 0.55 without, 0.43 with; benchmarks/results/expansion.json) or on captions and names
    (``photo``, words for things in photographs: 0.32 without, 0.28 with).
    """

    name: ClassVar[str] = TEMPLATES

    def expand(self, text: str) -> list[Variant]:
        """Fill the templates with a word, or what a determiner makes a phrase; weights sum to 1."""
        text = text.strip()
        # What cannot be printed, or holds no letter, is nothing that a photo shows.
        if not text.isprintable() or not any(map(str.isalnum, text)):
            return []
        first, _, rest = text.partition(" ")
        determined = bool(rest) and first.casefold() in _DETERMINERS
        if length(rest if determined else text) != WORD:
            return []
        if any(word in text.casefold() for word in _PROMPT_WORDS):
            return []
        phrase = text if determined else with_article(text)
        templates = _TEMPLATES[EN if language(text) == EN else ZH]
        return [
            Variant(template.format(text=text, phrase=phrase), 1 / len(templates), TEMPLATES)
            for template in templates
        ]


@dataclass(frozen=True)
class ExpanderPipeline:
    """Several expanders as one.

    Try the expanders in ``fallbacks`` until one proposes something, so that the user's rules win
    over the lexicon; then run all of ``additional``. ``templates`` are laid over what is selected.
    ``word_hashes`` tell which words the expanders knew.
    """

    fallbacks: Sequence[Expander]
    additional: Sequence[Expander] = ()
    templates: Templates | None = None
    word_hashes: Mapping[str, str] = field(default_factory=dict)
    name: ClassVar[str] = "chain"

    def expand(self, text: str) -> list[Variant]:
        """Propose the variants that a search would use, for a model of unknown languages."""
        return [v for v in propose_variants(text, self)[0][1:] if not v.unused]


def propose_variants(
    text: str,
    expander: Expander | None,
    languages: Sequence[str] = (),
    *,
    additional_languages: Sequence[str] = (),
) -> tuple[tuple[Variant, ...], tuple[ExpanderTrace, ...]]:
    """Expand one term: run the expanders, select by language, cap, lay templates over.

    Parameters
    ----------
    languages
        Those that the model reads; none: not known, all are searched for.
    additional_languages
        Those in which the lexicon's variants are searched for though the model reads the text.

    Returns
    -------
    variants
        The original first and each text once, as it was proposed first. What is not to be searched
        for is marked with the reason; besides the original at most ``MAX_VARIANTS`` are not.
    traces
        One for each expander that ran. An expander that fails is reported there, never raised.
    """
    if not isinstance(expander, ExpanderPipeline):
        expander = ExpanderPipeline((expander,) if expander else ())
    variants = [Variant(text.strip())]
    traces: list[ExpanderTrace] = []
    for i, candidate in enumerate((*expander.fallbacks, *expander.additional)):
        if i < len(expander.fallbacks) and len(variants) > 1:
            continue  # an earlier fallback has proposed something
        proposed, trace = _run_expander(candidate, variants[0].text)
        variants += proposed
        traces.append(trace)
    unique: dict[str, Variant] = {}
    for variant in variants:
        unique.setdefault(variant.text.casefold(), variant)  # models fold case
    variants = _cap_variants(
        select_variants(tuple(unique.values()), languages, additional_languages)
    )
    if expander.templates:
        variants, trace = _apply_templates(variants, expander.templates)
        traces.append(trace)
    return tuple(variants), tuple(traces)


def _run_expander(expander: Expander, text: str) -> tuple[list[Variant], ExpanderTrace]:
    start = time.perf_counter()
    proposed: list[Variant] = []
    failure = None
    try:
        proposed = expander.expand(text)
    except SoutuError as error:
        failure = error
    except Exception as error:  # a search must not depend on what only helps it
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        failure = SoutuError("expander-broke", error=reason[:200])
    return proposed, ExpanderTrace(expander.name, _ms_since(start), len(proposed), failure)


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)


def select_variants(
    variants: Sequence[Variant], languages: Sequence[str], additional_languages: Sequence[str] = ()
) -> tuple[Variant, ...]:
    """Mark the variants of one term, the original first, that do not suit the model's languages.

    At least one is left; where the languages are not known, all are. ``additional_languages`` as in
    ``propose_variants``.

    Notes
    -----
    A model that reads no Chinese makes noise of it: on drawn scenes and hand-written words
    ``tiny-en`` had a right picture among the first ten for 0.95 with English alone and for 0.70
    with the Chinese mixed in. One that reads Chinese may lose by English: ``tiny`` found the first
    picture for 0.84 instead of 0.90 of the words, 0.79 instead of 0.89 of the phrases it was
    trained to understand (and for 0.87 instead of 0.63 of hand-written words, many of which it has
    never seen). What is on by default must not harm, so there the lexicon is left aside;
    ``fusion: mean`` takes everything (benchmarks/results/expansion.json). On photographs ``photo``
    neither gains nor loses by it: R@10 of Chinese sentences 0.727 without, 0.730 with
    (benchmarks/results/photos_retrieval.json).
    """
    written = [ZH if CHINESE.search(variant.text) else EN for variant in variants]
    reads = [tongue in languages for tongue in written]
    if not any(reads):
        return tuple(variants)
    selected = []
    for variant, read, tongue in zip(variants, reads, written, strict=True):
        # Rules are what somebody asked for; a translation only helps out.
        helps = variant.source.startswith((LEXICON, TRANSLATION))
        if reads[0] and helps and tongue not in additional_languages:
            variant = replace(variant, unused=NOT_NEEDED)
        elif not read:
            variant = replace(variant, unused=NOT_READ)
        selected.append(variant)
    return tuple(selected)


def _cap_variants(variants: Sequence[Variant]) -> list[Variant]:
    """Mark all but the original and the heaviest, the earlier of equals."""
    used = [i for i, variant in enumerate(variants) if i and not variant.unused]
    excess = set(sorted(used, key=lambda i: -variants[i].weight)[MAX_VARIANTS:])
    return [replace(v, unused=TOO_MANY) if i in excess else v for i, v in enumerate(variants)]


def _apply_templates(
    variants: Sequence[Variant], templates: Templates
) -> tuple[list[Variant], ExpanderTrace]:
    """Let each variant share its weight with its prompts while there is room.

    What prompts a variant has does not change how much it counts.
    """
    start, added = time.perf_counter(), 0
    seen = {variant.text.casefold() for variant in variants}
    room = MAX_VARIANTS - sum(not variant.unused for variant in variants[1:])
    result: list[Variant] = []
    for variant in variants:
        prompts = [] if variant.unused else templates.expand(variant.text)
        prompts = [prompt for prompt in prompts if prompt.text.casefold() not in seen]
        if not prompts or len(prompts) > room:
            result.append(variant)
            continue
        share = variant.weight / (len(prompts) + 1)
        result += (replace(v, weight=share) for v in (variant, *prompts))
        seen |= {prompt.text.casefold() for prompt in prompts}
        room -= len(prompts)
        added += len(prompts)
    return result, ExpanderTrace(templates.name, _ms_since(start), added)


def override_variants(
    variants: Iterable[Variant], chosen: Iterable[Variant]
) -> tuple[Variant, ...]:
    """Use just the variants that a person chose, with their weights.

    Of the proposed ``variants`` of all terms, those not chosen are switched off; a term of which
    nothing is chosen keeps its original. What nobody had proposed comes last.
    """
    weights = {(variant.term, variant.text): variant.weight for variant in chosen}
    terms = {term for term, _ in weights}
    result = []
    for variant in variants:
        weight = weights.pop((variant.term, variant.text), None)
        if weight is not None:
            variant = replace(variant, weight=weight, unused="")
        elif variant.term in terms or variant.source != ORIGINAL:
            variant = replace(variant, unused=variant.unused or SWITCHED_OFF)
        result.append(variant)
    added = (Variant(text, weight, CHOSEN, term) for (term, text), weight in weights.items())
    return (*result, *added)


def merge_traces(traces: Iterable[ExpanderTrace]) -> tuple[ExpanderTrace, ...]:
    """Sum the traces of each expander over the terms; the first error stands."""
    merged: dict[str, ExpanderTrace] = {}
    for trace in traces:
        if previous := merged.get(trace.name):
            ms, proposed = round(previous.ms + trace.ms, 3), previous.proposed + trace.proposed
            trace = ExpanderTrace(trace.name, ms, proposed, previous.error or trace.error)
        merged[trace.name] = trace
    return tuple(merged.values())


def hash_words(rules: Path | None, lexicon: Path | None) -> dict[str, str]:
    """Hash the words that queries are expanded with; "" for a file that is not there."""
    hashes = {BUILT_IN_WORDS: _hash_package()}
    for name, file in ((RULES_FILE, rules), (LEXICON_FILE, lexicon)):
        hashes[name] = ""
        with suppress(OSError):
            if file:
                hashes[name] = blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return hashes


@cache
def _hash_package() -> str:
    folder = resources.files("soutu") / "query" / "data" / "lexicon"
    digest = blake2b(json.dumps(_inherited_rules()).encode(), digest_size=8)
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".tsv"):
            digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()
