"""What belongs to somebody else, or to nobody, is named; it is never a crash."""

import os
import shutil

import pytest

from soutu.gallery import Gallery
from tests.cases.commands import pictures, soutu

pytestmark = pytest.mark.skipif(os.name == "nt", reason="owners and permissions of POSIX")
STRANGER = 12345  # a user without an account


@pytest.fixture
def gallery(tmp_path):
    folder = pictures(tmp_path / "g", "a.png", "sub/b.png")
    (folder / "c.csv").write_text("image_path,caption\na.png,灰猫\n", "utf-8")
    with Gallery.open(folder, settings={"model": "tiny"}) as opened:
        opened.index(folder / "c.csv")
        opened.add_word("飞碟", ["ufo"])
    (folder / ".soutu" / "config.yaml").write_text("k: 3\n")
    (folder / ".soutu" / "expansions.yaml").write_text("queries: {猫: [cat]}\n", "utf-8")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


NO_ACCOUNT = """
import pwd
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
from soutu.cli import main
main()
"""


def as_stranger(*arguments, environment=None):
    """Run without a home, an account, and the rights of root."""
    nothing = {"HOME": None, "XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None, "USER": None}
    variables = {**nothing, **(environment or {})}
    prefix = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
    return soutu(*arguments, code=NO_ACCOUNT, environment=variables, cwd="/", prefix=prefix)


def lock_away(path):
    """Make ``path`` a thing that only somebody else may use."""
    if os.geteuid() == 0:
        os.chown(path, STRANGER, STRANGER)
        path.chmod(0o700 if path.is_dir() else 0o600)
    else:
        path.chmod(0)


@pytest.fixture(autouse=True)
def _no_rights(tmp_path):
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may read everything, and cannot be kept from it here")
    yield
    for folder in (tmp_path / "g" / ".soutu", tmp_path / "g"):
        if folder.is_dir():
            folder.chmod(0o755)


READERS = [["search", "cat"], ["info"], ["index"], ["doctor"], ["lexicon", "lookup", "猫"],
           ["explain", "cat"], ["caption", "{g}/a.png"], ["log", "show"], ["compact"],
           ["export", "{g}-out"], ["index", "--watch"], ["index", "--dry-run"]]  # fmt: skip


def run_on(folder, command):
    words = [word.format(g=folder) for word in command]
    place = [folder] if words[0] == "index" else ["-g", folder]
    return as_stranger(*words, *place)


@pytest.mark.parametrize("command", READERS)
def test_a_private_index_is_named_with_the_cure(gallery, command):
    lock_away(gallery / ".soutu")
    folder = gallery if len(command) % 2 else gallery / "sub"
    done = run_on(folder, command)
    assert done.returncode == 5, done.stderr
    assert b".soutu may not be read" in done.stderr
    assert b"--index DIR" in done.stderr


@pytest.mark.parametrize(
    "name", ["config.yaml", "rows.db", "lexicon.yaml", "expansions.yaml", "store"]
)
def test_a_private_file_of_an_index_is_named(gallery, name):
    file = gallery / ".soutu" / name
    file.touch()
    lock_away(file)
    for command in (["search", "cat"], ["info"], ["index"], ["explain", "cat"]):
        done = run_on(gallery, command)
        assert done.returncode == 5, done.stderr
        assert name.encode() in done.stderr
        assert b"bug" not in done.stderr


def test_an_index_that_is_readable_but_not_writable(gallery):
    for path in (*(gallery / ".soutu").iterdir(), gallery / ".soutu", gallery):
        path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.chown(path, STRANGER, STRANGER)
    done = run_on(gallery, ["search", "cat", "-k", "1"])
    assert done.returncode == 0, done.stderr
    assert b"not logged" in done.stderr
    for command in (["lexicon", "add", "飞船", "spaceship"], ["index"], ["compact"]):
        done = run_on(gallery, command)
        assert done.returncode == 5, (command, done.stderr)
        assert b"bug" not in done.stderr


@pytest.mark.parametrize("command", READERS[:3])
def test_a_file_in_the_place_of_the_index_is_named(tmp_path, command):
    folder = pictures(tmp_path / "f", "a.png")
    (folder / ".soutu").touch()
    done = run_on(folder, command)
    assert done.returncode == 5, done.stderr
    assert b".soutu is a file" in done.stderr


def test_a_link_to_nowhere_in_the_place_of_the_index(tmp_path):
    folder = pictures(tmp_path / "f", "a.png")
    (folder / ".soutu").symlink_to(tmp_path / "nowhere")
    assert run_on(folder, ["search", "cat"]).returncode == 3
    assert b"bug" not in run_on(folder, ["index"]).stderr


@pytest.mark.parametrize("home", [None, "", ".", "relative/home", "/nonexistent", "/dev/null"])
def test_no_home_is_needed(gallery, home):
    environment = {"HOME": home}
    commands = [["search", "cat", "-g", gallery], ["index", gallery], ["info", "-g", gallery],
                ["models"], ["models", "list"], ["doctor", "-g", gallery],
                ["index", "--rebuild", gallery]]  # fmt: skip
    for command in commands[:4] if home else commands:
        done = as_stranger(*command, environment=environment)
        assert done.returncode in (0, 2) if command[0] == "models" else done.returncode == 0, (
            done.stderr
        )
        assert b"bug" not in done.stderr
    assert not (gallery.parent / ".config").exists()


def test_a_store_or_a_model_cannot_be_remembered_without_a_home(gallery):
    done = as_stranger("models", "pull", gallery.parent / "nope", environment={"HOME": None})
    assert done.returncode in (2, 3), done.stderr
    bundle = shutil.copytree(_tiny(), gallery.parent / "mine")
    done = as_stranger("models", "pull", bundle, environment={"HOME": None})
    assert done.returncode == 5, done.stderr
    assert b"bug" not in done.stderr


def _tiny():
    from soutu.models.bundle import embedded_folder

    return embedded_folder("tiny")
