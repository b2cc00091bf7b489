"""The map of the code holds: who may import whom, who reads media, who prints, and what the public names are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmrec

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mmrec", "encoders", "fusion")
HEAVY = (
    "torch",
    "av",
    "lancedb",
    "librosa",
    "transformers",
    "open_clip",
    "sentence_transformers",
    "lightning",
    "sklearn",
)
PUBLIC = {
    "Catalog", "CatalogError", "EmbedReport", "EncoderError", "FeatureStore", "Features", "Item", "MMRecError",
    "ModelError", "Preset", "Problem", "Reason", "Recommender", "RecommenderConfig", "Status", "StoreError", "Tokens",
    "__version__", "adapt", "embed", "import_features", "load_preset", "read_catalog", "tune",
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def statements(path: Path, *, at_import: bool) -> Iterator[ast.stmt]:
    """The statements of a file; with `at_import` only those that run when it is imported, types left out."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.stmt):
            yield node
        todo += ast.iter_child_nodes(node)


def imports(name: str, *, at_import: bool = False) -> set[str]:
    """The modules that a module imports; our own by their full names."""
    found = set()
    for node in statements(SOURCES[name], at_import=at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{name}: imports are absolute"
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (deeper & SOURCES.keys()) or {node.module}
    return found


def top(name: str) -> str:
    return name.partition(".")[0]


def test_encoders_and_fusion_know_nothing_of_the_engine_or_each_other() -> None:
    for name in SOURCES:
        if top(name) != "mmrec":
            others = {top(other) for other in imports(name)} & {"mmrec", "encoders", "fusion"}
            assert others <= {top(name)}, name


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        (
            "av",
            (
                "mmrec.media",
                "mmrec.media.container",
                "mmrec.media.pictures",
                "mmrec.media.sound",
                "mmrec.sample.media_files",
            ),
        ),
        ("lancedb", ("mmrec.store",)),
        ("pebble", ("mmrec.decoding",)),
        ("filelock", ("mmrec.store",)),
    ],
)
def test_a_library_is_at_home_in_its_rooms(library: str, rooms: tuple[str, ...]) -> None:
    assert {name for name in SOURCES if library in {top(other) for other in imports(name)}} <= set(rooms)


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: imports(name, at_import=True) & SOURCES.keys() for name in SOURCES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in graph[name] - {name}:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_job_does_not_know_the_command_line_and_the_store_does_not_know_the_job() -> None:
    ranks = ["errors", "catalog", "features", "store", "panel", "packing", "embedding", "cli"]
    for low, room in enumerate(ranks):
        above = {f"mmrec.{other}" for other in ranks[low + 1 :]}
        for name in SOURCES:
            if name == f"mmrec.{room}" or name.startswith(f"mmrec.{room}."):
                assert not imports(name) & above, name


def test_only_the_command_line_prints_or_exits() -> None:
    for name, path in SOURCES.items():
        if name.startswith("mmrec.cli") or name == "mmrec.__main__":
            continue
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not calls & {"print", "sys.exit", "exit", "quit", "logging.basicConfig"}, name


def test_the_public_names_are_these() -> None:
    assert set(mmrec.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(mmrec, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mmrec.nothing  # noqa: B018


@pytest.mark.parametrize("code", ["import mmrec", "import mmrec.cli", "import encoders.base", "import fusion"])
def test_importing_costs_nothing(code: str) -> None:
    check = f"{code}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_decoding_workers_import_no_encoder() -> None:
    check = "import mmrec.decoding, sys; print([m for m in ('torch', 'lancedb', 'librosa') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
