"""Output arrives, whatever the streams can carry, and a stream that fails is no crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from soutu.gallery import Gallery
from tests.cases.commands import pictures, soutu

posix = pytest.mark.skipif(os.name == "nt", reason="names and streams of POSIX")
NAMES = [
    "Cafe\u0301.jpg", "😀.jpg", "猫\u200d.jpg", "bell\x07.jpg", "esc\x1b[31mred.jpg", "-k.jpg",
    "--help.jpg", "a\nb.jpg", " spaces .jpg", os.fsdecode(b"byte\xff.jpg"), "sub/-r.jpg",
]  # fmt: skip
ENCODINGS = ["cp1252", "gbk", "cp437", "koi8-r", "latin-1", "ascii", "utf-16", "utf-8", "big5"]
COMMANDS = [
    ["--help"], ["search", "--help"], ["search", "猫"], ["search", "猫", "--json"],
    ["search", "😀 cat", "--paths-only"], ["explain", "红色的猫"], ["explain", "猫", "--json"],
    ["info"], ["info", "--json"], ["log", "show"], ["log", "show", "--json"], ["log", "stats"],
    ["lexicon", "lookup", "猫"],
    ["--lang", "zh", "caption", "新.jpg"], ["search", "猫", "--nope猫"],
    ["index"], ["index", "--dry-run"], ["index", "--dry-run", "--json"], ["doctor"],
]  # fmt: skip
DRIVER = """
import json, sys
from soutu.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as done:
        sys.stdout.write(f"\\n==== {done.code}\\n")
"""


@pytest.fixture
def gallery(tmp_path):
    folder = pictures(tmp_path / "g", *NAMES)
    with Gallery.open(folder, settings={"model": "tiny"}) as opened:
        opened.index()
    return folder


@posix
@pytest.mark.parametrize(
    ("encoding", "lang"),
    [*((name, "en") for name in ENCODINGS if name != "utf-16"), ("cp1252", "zh"), ("ascii", "zh")],
)
def test_no_code_page_stops_a_command(gallery, encoding, lang):
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "SOUTU_LANG": lang}
    done = soutu(json.dumps(COMMANDS), code=DRIVER, environment=environment, cwd=gallery)
    out = done.stdout.decode(encoding, "surrogateescape")
    codes = [int(line[5:]) for line in out.splitlines() if line.startswith("==== ")]
    expected = [2 * bool({"新.jpg", "--nope猫"} & {*command}) for command in COMMANDS]
    assert (codes, done.returncode) == (expected, 0), done.stderr[-2000:]
    assert b"Traceback" not in done.stderr
    assert "猫" in out if encoding in ("gbk", "utf-8", "utf-16") else "\\u732b" in out
    for line in out.splitlines():
        if line.startswith("{"):
            json.loads(line)


@posix
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_says_the_same_in_every_code_page(gallery, encoding):
    environment = {"PYTHONIOENCODING": encoding}
    done = soutu("search", "😀 猫", "-k", 60, "--json", environment=environment, cwd=gallery)
    answer = json.loads(done.stdout.decode(encoding))
    assert {hit["path"] for hit in answer["hits"]} == set(NAMES)
    assert answer["query"] == "😀 猫"
    if encoding not in ("utf-8", "utf-16"):
        assert done.stdout.isascii()


@posix
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_paths_are_the_bytes_that_open_the_files(gallery, encoding):
    options = ("-k", 60, "--paths-only", "-0")
    environment = {"PYTHONIOENCODING": encoding}
    done = soutu("search", "cat", *options, environment=environment, cwd=gallery)
    paths = done.stdout.split(b"\0")[:-1]
    assert {os.path.normpath(path) for path in paths} == set(map(os.fsencode, NAMES))
    assert not [path for path in paths if path.startswith(b"-")]
    for path in paths:
        assert (gallery / os.fsdecode(path)).stat().st_size
    listing = subprocess.run(["xargs", "-0", "ls"], input=done.stdout, cwd=gallery,
                             capture_output=True)  # fmt: skip
    assert listing.returncode == 0, listing.stderr


@posix
def test_bytes_of_names_go_out_to_people_as_they_came(gallery):
    for encoding in ("utf-8", "cp1252", "gbk", "ascii"):
        done = soutu("search", "cat", "-k", 60, cwd=gallery,
                     environment={"PYTHONIOENCODING": encoding})  # fmt: skip
        assert b"byte\xff.jpg" in done.stdout, encoding
    assert b"\x1b" not in done.stdout


@posix
@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", ">&- 2>/dev/full"])
def test_what_was_asked_is_done_without_streams(gallery, shell):
    for command in (["search", "cat", "-k", 1], ["index"], ["index", "--json"], ["info"]):
        done = soutu(*command, shell=shell, cwd=gallery)
        assert done.returncode == 0, (command, done.stderr)
    for command in (["search", ""], ["search", "--nope"], ["index", gallery / "nowhere" / "x"]):
        assert soutu(*command, shell=shell, cwd=gallery).returncode in (2, 3), command
    with Gallery.open(gallery) as opened:
        assert opened.doctor().healthy, (
            "nothing was written where an index file took a stream's place"
        )


@posix
@pytest.mark.parametrize("command", [["search", "cat"], ["search", "cat", "--json"], ["--help"],
                                     ["search", "cat", "--paths-only"], ["info"]])  # fmt: skip
def test_a_full_disk_is_named_in_one_sentence(gallery, command):
    done = soutu(*command, shell=">/dev/full", cwd=gallery)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr
    assert b"bug" not in done.stderr


@posix
def test_a_reader_that_has_left_is_no_error(gallery):
    done = soutu("search", "cat", "-k", 60, shell="| true", cwd=gallery)
    assert (done.returncode, done.stderr) == (0, b"")


@posix
def test_a_vanished_working_directory(gallery, tmp_path):
    gone = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); "
    code = gone + "from soutu.cli import main; main()"
    done = soutu("search", "cat", "-g", gallery, "-k", 1, "--paths-only", code=code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert Path(os.fsdecode(done.stdout)).is_absolute()
    done = soutu("search", "--image", gallery / "-k.jpg", "-g", gallery, code=code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    for command in (["search", "cat"], ["index"], ["info"], ["search", "cat", "-g", "here"],
                    ["index", gallery, "--captions", "captions.csv"]):  # fmt: skip
        done = soutu(*command, code=code, cwd=tmp_path)
        assert (done.returncode, b"working directory" in done.stderr) == (2, True), done.stderr


COLOURED = {"TERM": "xterm-256color", "NO_COLOR": None, "PYTHONUTF8": "1"}


@posix
@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_are_left_out_where_nobody_wants_them(gallery, environment, coloured):
    import pty

    leader, follower = pty.openpty()
    variables = {**os.environ, **COLOURED, **environment}
    variables = {name: value for name, value in variables.items() if value is not None}
    command = [
        sys.executable,
        "-c",
        "from soutu.cli import main; main()",
        "search",
        "猫 + 狗",  # of several terms the first line says what was searched for
        "-k",
        "1",
    ]
    process = subprocess.Popen(command, stdout=follower, cwd=gallery, env=variables)
    os.close(follower)
    out = b""
    try:
        while part := os.read(leader, 4096):
            out += part
    except OSError:  # Linux: the other side is closed
        pass
    os.close(leader)
    assert process.wait() == 0
    assert (b"\x1b[" in out) == coloured
    assert "猫".encode() in out


def test_long_captions_are_shown_by_their_beginning(tmp_path):
    folder = pictures(tmp_path, "a.png")
    (folder / "c.csv").write_text(f"image_path,caption\na.png,{'很长 ' * 30_000}\n", "utf-8")
    with Gallery.open(folder, settings={"model": "tiny"}) as opened:
        opened.index(folder / "c.csv")
    for command in (["search", "cat"], ["caption", folder / "a.png"], ["log", "tail"]):
        done = soutu(*command, "-g", folder)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.decode()) < 1000
    done = soutu("search", "cat", "--json", "-g", folder)
    assert len(json.loads(done.stdout)["hits"][0]["caption"]) > 80_000
