"""The structure of the code: who may import whom, how long a module may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "soutu"

# Lowest first; a module imports only from lower layers, and siblings never from each other.
LAYERS = [
    {"errors", "types", "config", "filters", "text", "version"},
    {"sources", "encoders", "store", "query"},
    {"indexing", "search", "journal"},
    {"evaluation", "replay", "distributed"},
    {"assemble"},
    {"doctor"},
    {"gallery"},
    {"client", "server"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FREE_SIBLINGS = {0}  # errors, types, config, texts are one vocabulary
IMPLEMENTATIONS = {
    "store.local", "store.milvus.store", "encoders.onnx", "encoders.open_clip", "encoders.catalog",
    "query.rules", "query.translate", "query.llm",
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
def test_only_assemble_knows_implementations(path):
    inside = path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")
    for name in imports(path):
        if name in IMPLEMENTATIONS and part(inside) not in {"assemble", part(name)}:
            pytest.fail(f"{inside} imports the implementation {name}")


def test_the_test_sees_imports():
    assert "errors" in imports(SOURCE / "types.py") + imports(SOURCE / "config.py")
    assert "store.base" in imports(SOURCE / "indexing" / "run.py")


@pytest.mark.parametrize(
    "path",
    [
        *modules(),
        *sorted((ROOT / "training").rglob("*.py")),
        *sorted((ROOT / "tests").rglob("*.py")),
    ],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_a_module_stays_under_300_lines(path):
    assert len(path.read_text("utf-8").splitlines()) <= 300


def test_the_workspace_is_thin():
    for path in (ROOT / "clip_retrieval").rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 60, path.name


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_functions_stay_short_and_take_few_parameters(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 50, f"{node.name} has {length} lines"
            decorated = any(
                "option" in ast.dump(d) or "_k" in ast.dump(d) for d in node.decorator_list
            )
            if not decorated:  # a command's parameters are its options
                count = len(node.args.args) + len(node.args.kwonlyargs)
                count -= node.args.args[:1] != [] and node.args.args[0].arg in {"self", "cls"}
                assert count <= 6, f"{node.name} takes {count} parameters"


def test_only_the_cli_prints_or_exits():
    for path in modules():
        if path.is_relative_to(SOURCE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "sys.exit", "exit", "quit"}, f"{path}: {called}"
