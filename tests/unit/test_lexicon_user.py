"""Words of one's own: read strictly, laid over the lexicon, added without harm to the file."""

import json

import pytest

from soutu.errors import BadConfig
from soutu.gallery import Gallery
from soutu.query.expansion import LexiconExpander
from soutu.query.lexicon import add_word, load_lexicon, read_words
from tests.conftest import write_bundle

GOOD = """# mine
words:
  飞碟: [ufo, flying saucer]
  外星人: alien
  金毛:
    - {english: [golden retriever], sense: dog, kind: animal, synonyms: [大金毛]}
    - {english: [golden hair], sense: hair}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lexicon.yaml"
    path.write_text(GOOD, "utf-8")
    return path


def test_words_become_lines(file):
    assert read_words(file) == [
        "飞碟\tthing\tufo|flying saucer\t\t",
        "外星人\tthing\talien\t\t",
        "金毛\tanimal\tgolden retriever\t大金毛\tdog",
        "金毛\tthing\tgolden hair\t\thair",
    ]


def test_they_lie_over_the_package(file):
    lexicon = load_lexicon(file)
    assert [sense.label for sense in lexicon.lookup("金毛")] == ["dog", "hair"]
    assert lexicon.lookup("大金毛")[0].english == ("golden retriever",)
    assert lexicon.lookup("猫")[0].english[0] == "cat"
    said = LexiconExpander(lexicon).expand("雪地里的飞碟")
    assert said[0].text == "a ufo in the snow"


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("words: [1", "words-yaml", ""),
        ("words: 1", "words-form", ""),
        ("others: {}", "words-form", ""),
        ("words: {猫: [cat]}\nmore: 1", "words-form", ""),
        ("words: {cat: [cat]}", "words-word", "cat"),
        ("words: {1: [cat]}", "words-word", "1"),
        ('words: {"猫\\t": [cat]}', "words-word", "猫"),
        ("words: {猫: []}", "words-sense", "猫"),
        ("words: {猫: 5}", "words-sense", "猫"),
        ("words: {猫: ['a|b']}", "words-sense", "猫"),
        ("words: {猫: [{english: [cat], colour: red}]}", "words-sense", "猫"),
        ("words: {猫: [{sense: animal}]}", "words-sense", "猫"),
        ("words: {猫: [{english: [cat], synonyms: [1]}]}", "words-sense", "猫"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, code, named):
    path = tmp_path / "words.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(BadConfig) as told:
        read_words(path)
    assert told.value.code == code
    assert "words.yaml" in str(told.value)
    assert named in str(told.value)
    assert named in told.value.message("zh")


def test_adding_keeps_what_is_there(file):
    add_word(file, "恐龙蛋", ["dinosaur egg", 'a "big" egg'])
    assert file.read_text("utf-8").startswith(GOOD.rstrip())
    assert read_words(file)[-1] == '恐龙蛋\tthing\tdinosaur egg|a "big" egg\t\t'


def test_adding_begins_a_file(tmp_path):
    path = tmp_path / "new" / "lexicon.yaml"
    add_word(path, "飞碟", ["ufo"])
    assert read_words(path) == ["飞碟\tthing\tufo\t\t"]


@pytest.mark.parametrize(
    ("word", "english", "code"),
    [
        ("飞碟", ["ufo"], "words-there"),
        ("ufo", ["ufo"], "words-word"),
        ("船", ["a|b"], "words-sense"),
    ],
)
def test_a_refused_word_changes_nothing(file, word, english, code):
    with pytest.raises(BadConfig) as told:
        add_word(file, word, english)
    assert told.value.code == code
    assert file.read_text("utf-8") == GOOD


def test_a_file_in_another_style_is_left_as_it_was(tmp_path):
    path = tmp_path / "lexicon.yaml"
    path.write_text("words: {飞碟: [ufo]}\n", "utf-8")
    with pytest.raises(BadConfig) as told:
        add_word(path, "船", ["ship"])
    assert told.value.code == "words-append"
    assert path.read_text("utf-8") == "words: {飞碟: [ufo]}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["lexicon.yaml"]


def test_the_commands(photos, tmp_path, soutu):
    pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    assert soutu("index", photos, "--model", write_bundle(tmp_path / "model"))[0] == 0
    code, out, _ = soutu("lexicon", "lookup", "金毛", "-g", photos)
    assert code == 0
    assert "golden retriever" in out
    assert "three black cats" in soutu("lexicon", "lookup", "三只黑猫", "-g", photos)[1]
    code, _, err = soutu("lexicon", "lookup", "龘龘", "-g", photos)
    assert code == 1
    assert "soutu lexicon add" in err
    assert soutu("lexicon", "add", "龘龘", "many dragons", "-g", photos)[0] == 0
    assert "many dragons" in soutu("lexicon", "lookup", "龘龘", "-g", photos)[1]
    assert json.loads(soutu("lexicon", "lookup", "龘龘", "-g", photos, "--json")[1])["senses"]
    with Gallery.open(photos) as gallery:
        said = [variant.text for variant in gallery.search("龘龘").variants]
    assert said == ["龘龘", "many dragons"]
    code, out, _ = soutu("lexicon", "check", photos / ".soutu" / "lexicon.yaml")
    assert code == 0
    assert "1" in out
    assert soutu("lexicon", "check", tmp_path / "absent.yaml")[0] == 2
