"""The structure of the code: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "soutu"

# Lowest first; a module imports only from lower layers, and siblings never from each other.
LAYERS = [
    {"errors", "types", "settings", "text", "fs", "http", "i18n", "version"},
    {"images", "models", "store", "query"},
    {"search", "exchange"},
    {"indexing", "searchlog"},
    {"evaluation"},
    {"factory"},
    {"maintenance", "model"},
    {"gallery"},
    {"client", "server", "distributed", "testing"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FREE_SIBLINGS = {0}  # errors, types, settings, text are one vocabulary
IMPLEMENTATIONS = {
    "store.sqlite.store", "store.milvus.store", "models.onnx", "models.open_clip",
    "query.translate", "query.llm",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> list[str]:
    """Dotted names below ``soutu`` that the module imports, those for typing aside."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            if node.module == "soutu":
                found += [alias.name for alias in node.names]
            elif node.module.startswith("soutu."):
                found.append(node.module.removeprefix("soutu."))
        elif isinstance(node, ast.Import):
            found += [a.name.removeprefix("soutu.") for a in node.names if "soutu." in a.name]
    return found


def part(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_imports_point_downwards(path):
    own = part(path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", "."))
    if own == "__init__":
        return
    for name in imports(path):
        other = part(name)
        if other == own:
            continue
        assert LEVEL[other] <= LEVEL[own], f"{own} imports {name}, which lies above it"
        sibling = LEVEL[other] == LEVEL[own] and LEVEL[own] not in FREE_SIBLINGS
        assert not sibling, f"{own} imports its sibling {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_only_the_factory_knows_implementations(path):
    inside = path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")
    for name in imports(path):
        if name in IMPLEMENTATIONS and part(inside) not in {"factory", "maintenance", part(name)}:
            pytest.fail(f"{inside} imports the implementation {name}")


def test_the_test_sees_imports():
    assert "errors" in imports(SOURCE / "types.py") + imports(SOURCE / "settings.py")
    assert "store.base" in imports(SOURCE / "indexing" / "indexer.py")


def test_the_workspace_is_thin():
    for path in (ROOT / "clip_retrieval").rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 60, path.name


def test_only_the_cli_prints_or_exits():
    for path in modules():
        if path.is_relative_to(SOURCE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "sys.exit", "exit", "quit"}, f"{path}: {called}"
