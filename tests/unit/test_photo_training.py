"""The pure parts of the photo model's training: words, vocabulary, losses, packing."""

from pathlib import Path

import numpy as np
import pytest

from training.photo import corpus
from training.photo.concepts import chinese_words, class_texts, english_words, label, singular
from training.photo.corpus import Photos, Word
from training.photo.vocabulary import SPECIAL, Vocabulary, build_tokenizer, prune

pytestmark = pytest.mark.training
torch = pytest.importorskip("torch", reason="the trainer needs torch")

from training.photo import objectives
from training.photo.bundle_export import FourBitTable, four_bits
from training.photo.efficientnet import VARIANTS, EfficientNetLite, fold, scaled_width
from training.photo.english import latin_vocabulary, spans
from training.photo.image_tower import CAPTION_DIM, HALF, NAME_DIM, ImageTower, NameHead
from training.photo.prepare import TextTable
from training.photo.sentence_encoder import SentenceEncoder
from training.photo.synthetic import SyntheticFeatures
from training.photo.text_tower import BUCKETS, Bag, TextTower, pair_bucket, units_of
from training.photo.views import mix, random_views, whole

PIECES = (*SPECIAL, "▁", "▁a", "▁dog", "▁cat", "s", "雪", "地", "的", "雪地", "狗", ".")
SCORES = (*[-1000.0] * 4, -3, -4, -5, -5, -5, -6, -6, -5, -7, -6, -3)


def caption_photos(english: list[str], chinese: list[str]) -> Photos:
    """One photograph a caption; the machine translations say nothing."""
    captions = {"en": [[c] for c in english], "zh_written": [[c] for c in chinese]}
    captions |= {f"zh_machine_{m}": [[""] for _ in english] for m in "ab"}
    return Photos(tuple(Path(f"{i}.jpg") for i in range(len(english))), captions)


def test_english_words_leave_out_small_words_and_find_phrases():
    found = english_words("A dog eats an ice cream.", {"ice cream"})
    assert found == {"dog", "eats", "ice", "cream", "ice cream"}


def test_chinese_words_take_the_longest_known_word_first():
    assert chinese_words("雪地里的狗", {"雪", "雪地", "狗"}) == {"雪地", "狗"}


@pytest.mark.parametrize(
    ("plural", "expected"),
    [
        ("dogs", "dog"),
        ("beaches", "beach"),
        ("puppies", "puppy"),
        ("grass", "grass"),
        ("bus", "bus"),
    ],
)
def test_singular_undoes_common_plurals_only(plural, expected):
    assert singular(plural) == expected


def test_a_concept_is_shown_where_either_language_mentions_it():
    photos = caption_photos(["two dogs", "a cat", "grass"], ["", "", "一只狗"])
    concepts, labels = label(photos, [Word(("dog",), ("狗",)), Word(("cat",), ("猫",))], minimum=1)
    column = concepts.index(Word(("dog",), ("狗",)))
    assert labels[:, column].tolist() == [True, False, True]


def test_words_on_too_few_photographs_are_no_concepts():
    photos = caption_photos(["a dog", "a dog", "a cat"], ["", "", ""])
    concepts, _ = label(photos, [Word(("dog",), ()), Word(("cat",), ())], minimum=2)
    assert concepts == [Word(("dog",), ())]


def test_class_names_take_over_the_lexicons_synonyms():
    lexicon = [Word(("golden retriever", "goldie"), ("金毛", "金毛犬"))]
    texts = class_texts([Word(("Golden Retriever",), ("金毛寻回犬",))], lexicon)
    assert texts == [
        (("Golden Retriever", "golden retriever", "goldie"), ("金毛寻回犬", "金毛", "金毛犬"))
    ]


def test_broader_names_cover_classes_of_the_classifier():
    broader = corpus.read_broader()
    assert all(0 <= c < 1000 for _, classes in broader for c in classes)
    assert len({word.chinese[0] for word, _ in broader}) == len(broader)
    dogs = next(classes for word, classes in broader if word.chinese[0] == "狗")
    assert dogs == tuple(range(151, 269))


def test_pruning_keeps_what_texts_need_and_adds_unknown_characters():
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁dog", -3.0)]
    pieces += [("▁perro", -3.0), ("狗", -4.0), ("狗狗", -5.0), ("犬", -6.0)]
    kept = prune(pieces, ["dog 狗 伞", "dog 伞"], minimum=2, latin=1)
    assert "▁dog" in kept.pieces
    assert "▁perro" not in kept.pieces
    assert "狗狗" not in kept.pieces
    assert "犬" in kept.pieces  # single characters stay
    assert kept.rows[kept.pieces.index("伞")] == 0  # USE's unknown token
    assert kept.rows[kept.pieces.index("▁dog")] == 4


def test_the_tokenizer_lowers_case_folds_width_and_pads_nothing():
    tokenizer = build_tokenizer(PIECES, SCORES)
    assert tokenizer.encode("A  DOG").tokens == ["<s>", "▁a", "▁dog", "</s>"]
    assert tokenizer.encode("ＤＯＧ").ids == tokenizer.encode("dog").ids


def test_a_special_token_that_somebody_types_is_text():
    characters = tuple(dict.fromkeys("▁</padsunk>"))
    tokenizer = build_tokenizer(
        (*SPECIAL, *characters), (*[-1000.0] * 4, *[-12.0] * len(characters))
    )
    for token in SPECIAL:
        assert tokenizer.encode(token).ids[1:-1] == tokenizer.encode(f" {token}").ids[1:-1]
        assert min(tokenizer.encode(token).ids[1:-1]) > 3


def test_latin_pieces_lose_every_chinese_character():
    tokens = np.arange(len(PIECES))
    latin = latin_vocabulary(Vocabulary(PIECES, SCORES, tokens))
    assert latin.pieces == (*SPECIAL, "▁", "▁a", "▁dog", "▁cat", "s", ".")


def test_spans_are_parts_of_captions():
    caption = "a brown dog runs over the wet grass ."
    assert all(part in caption for part in spans([caption], 50, seed=1))


def test_text_numbers_are_given_in_order_of_first_use():
    table = TextTable()
    assert [table(t) for t in ("a", "b", "a")] == [0, 1, 0]
    assert table.all() == ["a", "b"]


def test_folding_the_batch_normalisation_changes_nothing():
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(3, 32, 3, bias=False), torch.nn.BatchNorm2d(32, eps=1e-3)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    state = {"_conv_stem.weight": conv.weight}
    state |= {f"_bn0.{name}": value for name, value in norm.state_dict().items()}
    folded = fold(state)
    x = torch.randn(2, 3, 9, 9)
    expected = norm.eval()(conv(x))
    got = torch.nn.functional.conv2d(x, folded["_conv_stem.weight"], folded["_conv_stem.bias"])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_the_variants_have_the_published_numbers_of_blocks_and_channels():
    assert [EfficientNetLite(name).block_count for name in VARIANTS] == [16, 21, 21]
    assert [scaled_width(c, 1.1) for c in (24, 40, 112, 192)] == [24, 48, 120, 208]


def test_image_vectors_are_unit_and_halved_between_the_parts():
    tower = ImageTower(EfficientNetLite("lite0"), 14, torch.randn(1000, NAME_DIM)).eval()
    with torch.no_grad():
        vectors = tower(torch.randn(2, 3, 64, 64))
    assert vectors.shape == (2, CAPTION_DIM + NAME_DIM + 1)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(vectors[:, :CAPTION_DIM].norm(dim=1), torch.full((2,), HALF))


def test_an_unsure_classifier_gives_a_short_name_part():
    head = NameHead(torch.nn.functional.normalize(torch.randn(1000, NAME_DIM), dim=1))
    logits = torch.zeros(2, 1000)
    logits[1, 7] = 30
    vectors = head(logits).detach()
    lengths = vectors[:, :NAME_DIM].norm(dim=1)
    assert lengths[0] < 0.2
    assert lengths[1] > 0.99
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_padding_changes_no_text_vector():
    torch.manual_seed(0)
    tower = TextTower(SentenceEncoder(len(PIECES)), PIECES).eval()
    ids = torch.tensor([[2, 5, 6, 3]])
    padded = torch.nn.functional.pad(ids, (0, 6))
    with torch.no_grad():
        torch.testing.assert_close(tower(ids), tower(padded), atol=1e-5, rtol=1e-4)


def test_units_are_characters_in_chinese_and_pieces_elsewhere():
    assert units_of("▁雪地") == ["雪", "地"]
    assert units_of("▁dog") == ["▁dog"]
    assert units_of("<s>") == []


def test_the_bag_does_not_depend_on_how_chinese_is_cut():
    bag = Bag(PIECES)
    whole_word = torch.tensor([[2, PIECES.index("雪地"), PIECES.index("狗"), 3]])
    characters = torch.tensor([[2, *map(PIECES.index, ("雪", "地", "狗")), 3]])
    rows = bag.piece_rows()
    snow, ground = bag.first[PIECES.index("雪")], bag.first[PIECES.index("地")]
    expected = bag.units.weight[snow] + bag.units.weight[ground]
    expected = expected + bag.pairs.weight[pair_bucket(snow, ground)]
    torch.testing.assert_close(rows[PIECES.index("雪地")], expected)
    assert 0 <= pair_bucket(snow, ground) < BUCKETS
    a, b = bag(whole_word)[0], bag(characters)[0]
    torch.testing.assert_close(a / a.norm(), b / b.norm())


def test_four_bits_keep_rows_close_and_a_second_table_closer():
    torch.manual_seed(0)
    weights = torch.randn(6, 64)
    codes, scale = four_bits(weights)
    assert codes.dtype == torch.uint8
    assert codes.shape == (6, 32)
    assert scale.shape == (6, 1)
    rows = FourBitTable(weights, frequent=torch.tensor([1, 4]))(torch.arange(6))
    error = (rows - weights).norm(dim=1) / weights.norm(dim=1)
    assert (error < 0.2).all()
    assert error[[1, 4]].max() < error[[0, 2, 3, 5]].min() / 4


def test_contrast_is_lowest_for_matching_pairs():
    good, bad = torch.eye(4) * 10, torch.eye(4).roll(1, 0) * 10
    assert objectives.contrast(good) < 0.01
    assert objectives.contrast(bad) > 5


def test_rows_without_a_positive_do_not_count():
    scores = torch.randn(3, 5)
    positive = torch.zeros(3, 5, dtype=torch.bool)
    positive[0, 2] = True
    expected = -scores[0].log_softmax(0)[2]
    torch.testing.assert_close(objectives.any_of(scores, positive), expected)


def test_imitation_is_lowest_at_the_teachers_scores():
    teacher = torch.randn(5, 5)
    same = objectives.imitate(teacher, teacher)
    assert same < objectives.imitate(teacher + torch.randn(5, 5), teacher)


def test_hit_rates_count_texts_and_images():
    images = torch.eye(3)
    texts = torch.stack([images[0], images[1], images[0], images[2]])
    rates = objectives.hit_rates(texts, images, torch.tensor([0, 1, 2, 2]))
    assert rates == {"t2i@1": 0.75, "t2i@10": 1.0, "i2t@1": 1.0}


def test_synthetic_features_lean_towards_their_class():
    torch.manual_seed(0)
    rows = torch.randn(1000, 64)
    source = SyntheticFeatures(torch.rand(500, 64), rows)
    classes = torch.arange(100)
    made = source.draw(classes, torch.Generator().manual_seed(0))
    assert (made >= 0).all()
    own = (made @ rows.T).gather(1, classes[:, None]).mean()
    assert own > (made @ rows.T).mean() + 1


def test_views_are_normalised_and_follow_the_seed():
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    first = random_views(pixels, 24, torch.Generator().manual_seed(3))
    second = random_views(pixels, 24, torch.Generator().manual_seed(3))
    torch.testing.assert_close(first, second)
    assert first.shape == (2, 3, 24, 24)
    assert first.min() >= -127 / 128
    assert first.max() <= 1
    torch.testing.assert_close(whole(pixels, 32), (pixels.float() - 127) / 128)
    mixed = mix(first, torch.Generator().manual_seed(0), strength=0.0)
    torch.testing.assert_close(mixed, first)
