"""Settings: order of precedence, types, and what is wrong with one."""

from pathlib import Path

import pytest

from soutu.errors import BadConfig
from soutu.settings import Settings, load_settings, user_settings_file


def _user(text: str) -> None:
    user_settings_file().parent.mkdir(parents=True)
    user_settings_file().write_text(text, "utf-8")


def test_nothing_set_gives_the_defaults():
    assert load_settings(None, environment={}) == Settings()


def test_flags_over_environment_over_gallery_over_user(tmp_path):
    _user("{k: 2, device: cuda, model: user, max_pixels: 7}")
    (tmp_path / "config.yaml").write_text("{k: 3, device: coreml, model: gallery}", "utf-8")
    env = {"SOUTU_K": "4", "SOUTU_DEVICE": "cpu"}
    config = load_settings(tmp_path, {"k": 5, "model": None}, environment=env)
    assert (config.k, config.device, config.model, config.max_pixels) == (5, "cpu", "gallery", 7)


@pytest.mark.parametrize(("text", "value"), [("no", False), ("1", True), ("FALSE", False)])
def test_switches_are_read_from_the_environment(text, value):
    assert load_settings(None, environment={"SOUTU_EXPAND": text}).expand is value


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "off"), ("1", "on"), ("FALSE", "off"), ("on", "on"), ("hashed", "hashed")],
)
def test_the_journal_was_a_switch_and_is_a_choice(text, value):
    assert load_settings(None, environment={"SOUTU_JOURNAL": text}).journal == value
    assert load_settings(None, {"journal": value == "on"}, environment={}).journal in ("on", "off")


def test_a_relative_path_is_meant_from_the_settings_file(tmp_path):
    (tmp_path / "config.yaml").write_text("expansions: rules.yaml", "utf-8")
    assert load_settings(tmp_path, environment={}).expansions == str(tmp_path / "rules.yaml")


@pytest.mark.parametrize(("text", "value"), [("off", "off"), ("on", "on"), ("'off'", "off")])
def test_a_bare_on_or_off_means_what_it_says(tmp_path, text, value):
    """YAML reads them as true and false."""
    (tmp_path / "config.yaml").write_text(f"correction: {text}", "utf-8")
    assert load_settings(tmp_path, environment={}).correction == value


@pytest.mark.parametrize("value", ["0", "0.25", "1"])
def test_a_probability_lies_between_0_and_1(value):
    assert load_settings(None, environment={"SOUTU_MIN_CONFIDENCE": value}).min_confidence == float(
        value
    )


def test_an_empty_file_sets_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("# nothing yet\n", "utf-8")
    assert load_settings(tmp_path, environment={}) == Settings()


@pytest.mark.parametrize(
    ("text", "named"),
    [("k: many", "k"), ("k: 0", "k"), ("k: true", "k"), ("colour: red", "colour"),
     ("journal: maybe", "journal"), ("recall: 1", "recall"), ("recall: yes", "recall"),
     ("min_confidence: 1.5", "min_confidence"), ("min_confidence: -0.1", "0 … 1"),
     ("min_confidence: nan", "min_confidence"), ("correction: maybe", "auto / on / off"),
     ("model: 5", "model"), ("[1]", "name: value"), ("{", "{"),
     ("llm_timeout: 0", "0.1"), ("llm_timeout: .inf", "60"), ("llm_timeout: soon", "60"),
     ("llm_timeout: .nan", "60"), ("recall: 1", "0.999"), ("recall: 0.4", "0.5"),
     ("templates: 3", "templates"), ("llm: localhost", "http://"), ("llm: 5", "http://"),
     ("llm_model: [a]", "llm_model"), ("llm_key: abc", "llm_key"), ("translator: 5", "translator")],
)  # fmt: skip
def test_a_bad_setting_is_named_with_its_file(tmp_path, text, named):
    file = tmp_path / "config.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(BadConfig) as caught:
        load_settings(tmp_path, environment={})
    assert str(Path(file)) in str(caught.value)
    assert named in str(caught.value)


def test_a_bad_environment_variable_is_named():
    with pytest.raises(BadConfig, match=r"environment.*k cannot be 'x'"):
        load_settings(None, environment={"SOUTU_K": "x"})


def test_what_other_expanders_need_is_set(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "{translator: models/zh-en, llm: 'http://localhost:11434/v1', llm_model: m, templates: yes}"
    )
    config = load_settings(tmp_path, environment={"SOUTU_LLM_TIMEOUT": "2.5", "SOUTU_LLM_KEY": "k"})
    assert config.translator == str(tmp_path / "models" / "zh-en")
    assert (config.llm, config.llm_model) == ("http://localhost:11434/v1", "m")
    assert (config.llm_timeout, config.templates, config.recall) == (2.5, True, 0.99)
    assert "k" not in vars(config).values(), "the key is no setting"


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/v1", "http://10.0.0.1/v1", "http://localhost.evil.example/",
     "http://localhost@evil.example/", "http://127.0.0.1.evil.example/", "http://[::1/"],
)  # fmt: skip
def test_a_gallery_from_somebody_else_cannot_send_queries_elsewhere(tmp_path, url):
    (tmp_path / "config.yaml").write_text(f"llm: '{url}'", "utf-8")
    with pytest.raises(BadConfig, match="SOUTU_LLM"):
        load_settings(tmp_path, environment={})
    _user(f"llm: '{url}'")
    assert load_settings(None, environment={}).llm == url, "one's own settings may"
    assert load_settings(None, environment={"SOUTU_LLM": url}).llm == url


@pytest.mark.parametrize("url", ["http://localhost/v1", "http://127.0.0.1:8080", "http://[::1]:1"])
def test_a_gallery_may_name_a_model_on_this_machine(tmp_path, url):
    (tmp_path / "config.yaml").write_text(f"llm: '{url}'", "utf-8")
    assert load_settings(tmp_path, environment={}).llm == url
