"""The lexicon: looking up, cutting phrases into words, saying them in English."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soutu.query.expansion import (
    NOT_NEEDED,
    NOT_READ,
    LexiconExpander,
    propose_variants,
    select_variants,
)
from soutu.query.gloss import gloss, keyword_gloss, pluralize, with_article, with_number
from soutu.query.lexicon import Lexicon, Sense, built_in_lexicon, parse_line
from soutu.text import language, length, normalize, simplify
from soutu.types import Variant

SMALL = Lexicon(
    [
        "猫\tanimal\tcat|kitty\t猫咪\t",
        "灰\tcolour\tgray\t灰色\t",
        "灰猫\tanimal\tgray cat\t\t",
        "苹果\tfood\tapple\t\tfruit",
        "苹果\tthing\tiphone\t\tphone",
        "雪\tweather\tsnow\t雪花\t",
        "只\tmeasure\t-\t\t",
    ]
)


def test_a_line_is_a_sense():
    assert parse_line("猫\tanimal\tcat|kitty\t猫咪|喵\t") == Sense(
        "猫", "animal", ("cat", "kitty"), ("猫咪", "喵")
    )
    assert parse_line("只\tmeasure\t-\t\t").english == ()


def test_words_synonyms_and_senses():
    assert [sense.label for sense in SMALL.lookup("苹果")] == ["fruit", "phone"]
    assert SMALL.lookup("猫咪") == SMALL.lookup("猫")
    assert SMALL.lookup("老虎") == ()


def test_of_two_files_the_first_keeps_its_word():
    lexicon = Lexicon(["猫\tanimal\tcat\t\t", "猫\tanimal\tcat face\t猫脸\tface"])
    assert [sense.english for sense in lexicon.lookup("猫")] == [("cat",)]
    assert lexicon.lookup("猫脸") == ()


def test_segmentation_leaves_least_unknown_and_prefers_long_words():
    assert [token.text for token in SMALL.segment("灰猫")] == ["灰猫"]
    assert [token.text for token in SMALL.segment("一只灰猫看雪花")] == [
        "一",
        "只",
        "灰猫",
        "看",
        "雪花",
    ]
    assert SMALL.coverage(SMALL.segment("灰猫看雪花")) == pytest.approx(0.8)
    assert SMALL.coverage(SMALL.segment("abc")) == 1


@given(st.text("猫灰色雪花只一 a,", max_size=40))
def test_segments_are_the_text(text):
    tokens = SMALL.segment(text)
    assert "".join(token.text for token in tokens) == text
    assert all(not (a.senses == b.senses == ()) for a, b in pairwise(tokens))


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("雪地里的金毛", "a golden retriever in the snow"),
        ("三只黑猫", "three black cats"),
        ("一只黑猫在雪地里", "a black cat in the snow"),
        ("戴帽子的猫", "a cat wearing a hat"),
        ("骑自行车的女孩", "a girl biking"),
        ("桌子上的两个苹果", "two apples on the table"),
        ("骑大象的女孩", "a girl riding an elephant"),
        ("猫和狗", "a cat and a dog"),
        ("雨中的街道", "street in the rain"),
        ("两只企鹅站在蓝色的桌子旁边", "two penguins standing next to the blue table"),
        ("夜晚的城市", "city at night"),
        ("草地上奔跑的狗", "a dog running on the grass"),
        ("红色 car", "a red car"),
        ("有没有两只企鹅的图片", "two penguins"),
    ],
)
def test_phrases_become_captions(text, english):
    assert gloss(built_in_lexicon().segment(text)) == english


@pytest.mark.parametrize(
    ("text", "english"),
    [
        # relative clauses, with an object, a colour alone, and one inside another sentence
        ("穿红色衣服的女人", "a woman wearing red clothes"),
        ("一个穿红色的男孩", "a boy wearing red"),
        (
            "一个穿着蓝色球衣的男孩坐在长椅上",
            "a boy wearing a blue sports jersey sitting on the bench",
        ),
        ("一个在冲浪的男子", "a man surfing"),
        ("站起来的狗", "a dog standing"),
        ("女孩看着拿球的男孩", "a girl looking at a boy holding a ball"),
        ("男人拿着他的球", "a man holding a ball"),
        # what is not there
        ("没有人的沙滩", "empty beach"),
        ("没有帽子的男孩", "a boy without hat"),
        ("没有叶子的树", "a tree without leaf"),
        ("不戴帽子的男人", "a man not wearing a hat"),
        # groups and amounts
        ("一群人", "a group of people"),
        ("一群穿着球衣的男人", "a group of men wearing a sports jersey"),
        ("一排椅子", "a row of chairs"),
        ("许多孩子", "many children"),
        # measure words, progressives, joined words
        ("一条狗正在跑", "a dog running"),
        ("两只狗在雪地里玩耍", "two dogs playing in the snow"),
        ("一头牛", "a cow"),
        ("一把椅子", "a chair"),
        ("一只黑色和白色的狗", "a black and white dog"),
        ("男孩和他的狗", "a boy and a dog"),
        # prepositions, directions, 把 and 被
        ("狗沿着篱笆跑", "a dog running along fence"),
        ("男孩跳过栏杆", "a boy jumping over a railing"),
        ("街上有很多人", "many people on the street"),
        ("被雪覆盖的山", "mountain covered with snow"),
        ("男人把球扔给狗", "a man throwing a ball giving a dog"),
        ("孩子一起玩耍", "a child together playing"),
        # what a place holds, and when something is
        ("桌上放着一束鲜花", "a bouquet on the table"),
        ("草地上跑着两只狗", "two dogs running on the grass"),
        ("路边停着一辆汽车", "a car parked in the roadside"),
        ("在草地上拿着球", "holding a ball on the grass"),
        ("日落的时候有两只狗", "two dogs at sunset"),
        ("黄昏，沙漠里有一只骆驼", "a camel at dusk in the desert"),
        # sentences of several parts
        (
            "三只狗在雪地里奔跑，其中一只叼着红色的球",
            "three dogs running in the snow carrying a red ball",
        ),
        ("男人坐着，狗躺着", "a man sitting, a dog lying down"),
    ],
)
def test_sentences_become_captions(text, english):
    assert gloss(built_in_lexicon().segment(normalize(text))) == english


@given(st.text("的在把被没有一两只个穿跑狗人红和，上有", max_size=24))
def test_any_order_of_words_is_read_to_its_end(text):
    tokens = built_in_lexicon().segment(normalize(text))
    words = set(gloss(tokens).replace(",", "").split())
    assert words & {"dog", "dogs"} or not any(token.text == "狗" for token in tokens)


def test_listed_says_the_words_without_grammar():
    assert keyword_gloss(built_in_lexicon().segment("三只黑猫在桌子上")) == "black cat, table"


def test_nothing_known_says_nothing():
    assert gloss([]) == ""
    assert gloss(SMALL.segment("龘")) == ""


@pytest.mark.parametrize(
    ("one", "many"),
    [("cat", "cats"), ("golden retriever", "golden retrievers"), ("puppy", "puppies"),
     ("fox", "foxes"), ("bus", "buses"), ("sheep", "sheep"), ("snowman", "snowmen"),
     ("toy", "toys"), ("peach", "peaches"), ("mouse", "mice")],
)  # fmt: skip
def test_plurals(one, many):
    assert pluralize(one) == many
    assert with_number(2, one) == f"two {many}"


def test_articles():
    said = ["cat", "umbrella", "unicorn", "fireworks", "Great Wall", "people", "bus"]
    assert [with_article(word) for word in said] == [
        "a cat", "an umbrella", "a unicorn", "fireworks", "Great Wall", "people", "a bus"
    ]  # fmt: skip


def test_normalizing():
    assert normalize(" 灰猫，ＡＢＣ！ ") == "灰猫 abc"
    assert simplify("紅色的汽車") == "红色的汽车"
    assert [language(text) for text in ("灰猫", "cat", "红色 car", "123")] == [
        "zh", "en", "mixed", "en"
    ]  # fmt: skip
    assert [length(t) for t in ("灰猫", "雪地里的金毛", "一只灰猫蹲在草地上看着远方")] == [
        "word", "phrase", "sentence"
    ]  # fmt: skip
    assert [length(t) for t in ("gray cat", "a cat in the snow", "a cat sits on a red car")] == [
        "word", "phrase", "sentence"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["紅色汽車", "红色汽车！", "　红色汽车"])
def test_other_forms_of_a_word_are_understood(text):
    assert "red car" in " ".join(v.text for v in LexiconExpander().expand(text))


def test_senses_are_variants_of_their_own():
    said = {v.text: v for v in LexiconExpander(SMALL).expand("苹果")}
    assert (said["apple"].source, said["apple"].weight) == ("lexicon:fruit", 1.0)
    assert (said["iphone"].source, said["iphone"].weight) == ("lexicon:phone", 0.5)


def test_what_is_mostly_unknown_is_left_alone():
    assert LexiconExpander(SMALL).expand("龘龘龘猫") == []


SAID, _ = propose_variants("灰猫", LexiconExpander(SMALL))


def test_a_model_that_reads_no_chinese_gets_none():
    picked = select_variants(SAID, ("en",))
    assert {v.text: v.unused for v in picked} == {"灰猫": NOT_READ, "gray cat": ""}


def test_a_model_that_reads_it_needs_no_lexicon_but_keeps_to_rules():
    ruled = (*SAID, Variant("kitty", 1.0, "mine"))
    picked = {v.text: v.unused for v in select_variants(ruled, ("zh", "en"))}
    assert picked == {"灰猫": "", "gray cat": NOT_NEEDED, "kitty": ""}


def test_without_knowledge_or_choice_all_count():
    assert select_variants(SAID, ()) == SAID
    assert select_variants(SAID[:1], ("en",)) == SAID[:1]


def test_the_built_in_lexicon_is_large():
    assert len(built_in_lexicon()) >= 5000
