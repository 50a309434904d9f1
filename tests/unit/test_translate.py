"""Translation: a model that has learnt five pairs, run both ways; folders that hold none."""

import builtins
import shutil

import pytest

from soutu.errors import BadConfig, MissingExtra
from soutu.query.translate import Translator

pytest.importorskip("sentencepiece", reason="needs sentencepiece (extra translate)")
pytest.importorskip("ctranslate2", reason="needs ctranslate2 (extra translate)")
pytest.importorskip("torch", reason="needs torch to make a model")
pytest.importorskip("transformers", reason="needs transformers to make a model")

from tests.small_marian import PAIRS, convert, one_thread, write_marian


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    return write_marian(tmp_path_factory.mktemp("translation") / "marian")


@pytest.fixture(scope="module")
def converted(marian):
    return convert(marian, marian.with_name("converted"))


@pytest.fixture(params=["marian", "converted"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copied")


def test_what_was_learnt_comes_out(folder):
    translator = Translator(folder)
    for zh, en in PAIRS.items():
        best, *others = translator.expand(zh)
        assert (best.text, best.weight, best.source) == (en, 1.0, "translation")
        assert all(0 < other.weight < 1 and other.text != en for other in others)
        assert len(others) <= 1


def test_both_ways_of_running_it_agree(marian, converted):
    first, second = Translator(marian), Translator(converted)
    for text in (*PAIRS, "雪地里的三只黑猫", "红色的猫"):
        best = [translator.expand(text)[:1] for translator in (first, second)]
        assert best[0] == best[1]


def test_only_chinese_is_translated_and_nothing_endless(folder):
    translator = Translator(folder)
    assert translator.expand("golden retriever") == []
    assert translator.expand("金毛" * 10_000) == []
    for text in ("金" * 300, "金毛\n\x00", "金\ud800毛", "龘", "金毛 GOLDEN"):
        for variant in translator.expand(text):
            assert len(variant.text) < 1000
            assert "\n" not in variant.text


def test_one_sentencepiece_model_for_both_languages_will_do(converted, tmp_path):
    import sentencepiece

    folder = shutil.copytree(converted, tmp_path / "shared")
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"add_source_eos": false', '"add_source_eos": true')
    )
    (folder / "source.spm").unlink()
    (folder / "target.spm").unlink()
    with pytest.raises(BadConfig, match=r"SentencePiece"):
        Translator(folder).expand("金毛")
    lines = [*PAIRS, *PAIRS.values()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "sentencepiece"),
        model_type="char", vocab_size=90, hard_vocab_limit=False, minloglevel=2,
        character_coverage=1.0,
    )  # fmt: skip
    assert Translator(folder).expand("金毛")[0].text == "golden retriever"


@pytest.mark.parametrize("name", ["model", "source.spm", "target.spm", "config.json"])
def test_a_damaged_file_is_named_with_its_folder(copied, name):
    file = next(path for path in copied.iterdir() if path.name.startswith(name))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(BadConfig) as caught:
        Translator(copied).expand("金毛")
    assert str(copied) in str(caught.value)


def test_weights_that_are_not_all_there_are_no_model(marian, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(marian, tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "decoder.layers.0.fc1" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadConfig, match=r"fc1"):
        Translator(folder).expand("金毛")


def test_weights_in_a_pickle_are_not_read(marian, tmp_path):
    folder = shutil.copytree(marian, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadConfig, match=r"pickles are not read"):
        Translator(folder).expand("金毛")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadConfig, match=r"nowhere"):
        Translator(tmp_path / "nowhere").expand("金毛")


@pytest.mark.parametrize(
    ("lacking", "which", "extra"),
    [("ctranslate2", "converted", "translate"), ("sentencepiece", "converted", "translate"),
     ("sentencepiece", "marian", "translate"), ("torch", "marian", "translate,torch")],
)  # fmt: skip
def test_what_is_not_installed_is_named(request, monkeypatch, lacking, which, extra):
    real = builtins.__import__

    def without(name, *rest):
        if name == lacking:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    folder = request.getfixturevalue(which)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra) as caught:
        Translator(folder).expand("金毛")
    assert f"soutu[{extra}]" in str(caught.value)


def test_loading_shows_no_progress(marian, capfd):
    Translator(marian).expand("金毛")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
