"""Settings: order of precedence, types, and what is wrong with one."""

from pathlib import Path

import pytest

from soutu.config import Config, load_config, user_file
from soutu.errors import BadConfig


def _user(text: str) -> None:
    user_file().parent.mkdir(parents=True)
    user_file().write_text(text, "utf-8")


def test_nothing_set_gives_the_defaults():
    assert load_config(None, environment={}) == Config()


def test_flags_over_environment_over_gallery_over_user(tmp_path):
    _user("{k: 2, device: cuda, model: user, max_pixels: 7}")
    (tmp_path / "config.yaml").write_text("{k: 3, device: coreml, model: gallery}", "utf-8")
    env = {"SOUTU_K": "4", "SOUTU_DEVICE": "cpu"}
    config = load_config(tmp_path, {"k": 5, "model": None}, environment=env)
    assert (config.k, config.device, config.model, config.max_pixels) == (5, "cpu", "gallery", 7)


@pytest.mark.parametrize(("text", "value"), [("no", False), ("1", True), ("FALSE", False)])
def test_switches_are_read_from_the_environment(text, value):
    assert load_config(None, environment={"SOUTU_JOURNAL": text}).journal is value


def test_a_relative_path_is_meant_from_the_settings_file(tmp_path):
    (tmp_path / "config.yaml").write_text("expansions: rules.yaml", "utf-8")
    assert load_config(tmp_path, environment={}).expansions == str(tmp_path / "rules.yaml")


@pytest.mark.parametrize(("text", "value"), [("off", "off"), ("on", "on"), ("'off'", "off")])
def test_a_bare_on_or_off_means_what_it_says(tmp_path, text, value):
    """YAML reads them as true and false."""
    (tmp_path / "config.yaml").write_text(f"correction: {text}", "utf-8")
    assert load_config(tmp_path, environment={}).correction == value


@pytest.mark.parametrize("value", ["0", "0.25", "1"])
def test_a_probability_lies_between_0_and_1(value):
    assert load_config(None, environment={"SOUTU_MIN_CONFIDENCE": value}).min_confidence == float(
        value
    )


def test_an_empty_file_sets_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("# nothing yet\n", "utf-8")
    assert load_config(tmp_path, environment={}) == Config()


@pytest.mark.parametrize(
    ("text", "named"),
    [("k: many", "k"), ("k: 0", "k"), ("k: true", "k"), ("colour: red", "colour"),
     ("journal: maybe", "journal"), ("recall: 1", "recall"), ("recall: yes", "recall"),
     ("min_confidence: 1.5", "min_confidence"), ("min_confidence: -0.1", "0 … 1"),
     ("min_confidence: nan", "min_confidence"), ("correction: maybe", "auto / on / off"),
     ("model: 5", "model"), ("[1]", "name: value"), ("{", "{")],
)  # fmt: skip
def test_a_bad_setting_is_named_with_its_file(tmp_path, text, named):
    file = tmp_path / "config.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(BadConfig) as caught:
        load_config(tmp_path, environment={})
    assert str(Path(file)) in str(caught.value)
    assert named in str(caught.value)


def test_a_bad_environment_variable_is_named():
    with pytest.raises(BadConfig, match=r"environment.*k cannot be 'x'"):
        load_config(None, environment={"SOUTU_K": "x"})
