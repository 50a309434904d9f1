"""The figures of the benchmarks that compare one version of the code with another."""

import sys

import pytest

from benchmarks.reading_distance import Trace, count, hops
from benchmarks.version_pairs import median_interval


def test_hops_back_lead_into_files_that_were_read():
    functions = [("a.py", "f"), ("a.py", "g"), ("b.py", "f"), ("a.py", "h"), ("c.py", "f")]
    assert [mark for mark, _, _ in hops(functions)] == ["→", "", "→", "⟲", "→"]


def test_counts_of_a_walk(tmp_path):
    package = tmp_path / "src" / "soutu"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n2\n", "utf-8")
    (package / "b.py").write_text("1\n", "utf-8")
    functions = [("a.py", "f"), ("b.py", "f"), ("a.py", "g")]
    assert count(tmp_path, functions) == {
        "functions": 3, "files": 2, "hops": 3, "back": 1, "lines": 3,
    }  # fmt: skip


def test_a_trace_holds_functions_once_and_in_order(tmp_path, monkeypatch):
    code = """
class Box:
    def get(self):
        return [inner() for _ in range(2)]

def inner():
    return (lambda: 1)()

def outer():
    Box().get()
    inner()
"""
    (tmp_path / "traced_module.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    trace = Trace(tmp_path, on=True)
    before = sys.getprofile()
    sys.setprofile(trace._profile)
    try:
        import traced_module  # type: ignore[import-not-found]

        traced_module.outer()
    finally:
        sys.setprofile(before)
    assert [(file, name.rpartition(".")[2]) for file, name in trace.functions] == [
        ("traced_module.py", "outer"),
        ("traced_module.py", "get"),
        ("traced_module.py", "inner"),
    ]


@pytest.mark.parametrize(
    ("count", "ranks"),
    [
        (3, (1, 3)),  # too few for 95 %
        (6, (1, 6)),  # 96.9 %
        (11, (2, 10)),  # 98.8 %; the next narrower pair holds it with 93.5 %
        (21, (6, 16)),  # 97.3 %
    ],
)
def test_interval_of_a_median(count, ranks):
    values = [float(n) for n in range(count, 0, -1)]
    assert median_interval(values) == ranks
