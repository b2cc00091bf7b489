"""The house holds: who may import whom, which library is at home where, who prints, and what the public names are."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

import mmrec

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mmrec", "encoders", "fusion")
ROOMS = (
    "cli",
    "service",
    "reporting",
    "understanding",
    "recommending",
    "adapting",
    "evaluation",
    "tagging",
    "searching",
    "ranking",
    "embedding",
    "store",
    "media",
    "catalog",
    "tables",
    "remote",
    "cluster",
    "sample",
    "errors",
)
"""From the top of the house down: a room imports rooms below it, never above."""
HOMES = {
    "av": ("mmrec.media", "mmrec.sample.media_files"),
    "faiss": ("mmrec.ranking.approximate",),
    "filelock": ("mmrec.store", "mmrec.remote.cache", "mmrec.recommending.model_versions"),
    "implicit": ("mmrec.evaluation.baselines",),
    "lancedb": ("mmrec.store",),
    "lightning": ("fusion",),
    "optuna": ("mmrec.recommending.tuning",),
    "pebble": ("mmrec.embedding.decoding",),
    "faster_whisper": ("mmrec.understanding.speech",),
    "obstore": ("mmrec.remote.objects",),
    "llama_cpp": ("mmrec.understanding.llama_models", "mmrec.understanding.llama_sequences"),
    "openai": ("mmrec.understanding.servers",),
    "ray": ("mmrec.cluster.ray_cluster", "mmrec.embedding.ray_engine"),
    "rapidocr": ("mmrec.understanding.screen_text",),
    "fastapi": ("mmrec.service",),
    "starlette": ("mmrec.service",),
    "uvicorn": ("mmrec.service",),
    "flask": ("mmrec.service",),
    "httpx": ("mmrec.service.client",),
}
"""The rooms or files that alone may import a library."""
ENDINGS = ("print", "exit", "quit", "sys.exit", "logging.basicConfig")
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
    "Catalog", "CatalogError", "Client", "EmbedReport", "EncoderError", "FeatureStore", "Features", "Item",
    "MMRecError",
    "ModelError", "Preset", "Problem", "Query", "Reason", "Recommender", "RecommenderConfig", "SearchError",
    "Searcher", "Status", "StoreError", "TaggingError", "Tokens",
    "__version__", "adapt", "embed", "import_features", "load_preset", "read_catalog", "search",
    "tag", "tune",
}  # fmt: skip
MAX_LINES = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path.read_text(encoding="utf-8")
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def statements(source: str, *, at_import: bool) -> Iterator[ast.stmt]:
    """The statements of a file; with `at_import` only those that run when it is imported, types left out."""
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.stmt):
            yield node
        todo += ast.iter_child_nodes(node)


def imports(sources: Mapping[str, str], name: str, *, at_import: bool = False) -> set[str]:
    """The modules that a module imports; our own by their full names."""
    found = set()
    for node in statements(sources[name], at_import=at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                found.add(f"a relative import in {name}")
                continue
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (deeper & sources.keys()) or {node.module}
    return found


def top(name: str) -> str:
    return name.partition(".")[0]


def room(name: str) -> str:
    """The room of one of mmrec's modules; empty for others, and for the package itself."""
    return "" if top(name) != "mmrec" or name in ("mmrec", "mmrec.__main__") else name.split(".")[1]


def violations(sources: Mapping[str, str]) -> list[str]:
    """Every import, print and exit that the plan of the house forbids."""
    found = []
    for name in sources:
        for other in imports(sources, name):
            if top(name) in ("encoders", "fusion") and top(other) in {"mmrec", "encoders", "fusion"} - {top(name)}:
                found.append(f"{name} imports {other}: encoders and fusion stand alone")
            if other.startswith("a relative import"):
                found.append(other)
            home = HOMES.get(top(other))
            if home is not None and not any(name == h or name.startswith(h + ".") for h in home):
                found.append(f"{name} imports {other}, which is at home in {', '.join(home)}")
            if top(name) == "mmrec" and top(other) == "mmrec" and room(name) and room(other) != room(name):
                if room(other) and ROOMS.index(room(other)) < ROOMS.index(room(name)):
                    found.append(f"{name} imports {other}, from a room above")
                if other.count(".") > 1:
                    found.append(f"{name} imports {other}, another room's inner file")
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(sources[name])) if isinstance(node, ast.Call)}
        if room(name) != "cli" and name != "mmrec.__main__" and calls & set(ENDINGS):
            found.append(f"{name} calls {', '.join(sorted(calls & set(ENDINGS)))}: only the command line does")
    return found


def test_the_plan_of_the_house_holds() -> None:
    assert violations(SOURCES) == []


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("mmrec.store.rows", "from mmrec.embedding import embed", "a room above"),
        ("mmrec.media.sound", "def f():\n    from mmrec.store import FeatureStore", "a room above"),
        ("mmrec.recommending.users", "from mmrec.store.rows import to_table", "inner file"),
        ("mmrec.recommending.users", "import mmrec.store.rows", "inner file"),
        ("encoders.audio", "import fusion.attention", "stand alone"),
        ("fusion.attention", "from mmrec.errors import MMRecError", "stand alone"),
        ("mmrec.recommending.users", "import lancedb", "at home in mmrec.store"),
        ("mmrec.embedding.packing", "import av.video", "at home in mmrec.media"),
        ("mmrec.cli.output", "from fastapi import FastAPI", "at home in mmrec.service"),
        ("mmrec.ranking.ranker", "print('done')", "only the command line"),
        ("encoders.base", "import sys\nsys.exit(1)", "only the command line"),
        ("mmrec.ranking.ranker", "from .pruning import Exclusions", "relative import"),
    ],
)
def test_what_is_planted_is_found(name: str, line: str, complaint: str) -> None:
    (found,) = violations({**SOURCES, name: f"{SOURCES[name]}\n{line}\n"})
    assert complaint in found
    assert name in found


@pytest.mark.parametrize("engine", ["local_engine", "ray_engine"])
def test_both_engines_run_the_same_stages(engine: str) -> None:
    """Each takes the functions that a job consists of from where they stand, and has none of its own."""
    stages = {"encoded", "settled", "unfinished", "word_digests"}
    found = list(statements(SOURCES[f"mmrec.embedding.{engine}"], at_import=False))
    homes = ("mmrec.embedding.encoding", "mmrec.embedding.stages")
    taken = {
        alias.name
        for node in found
        if isinstance(node, ast.ImportFrom) and node.module in homes
        for alias in node.names
    }
    assert taken >= stages
    assert not stages & {node.name for node in found if isinstance(node, ast.FunctionDef)}


def test_every_room_stands_in_the_plan_and_shows_what_it_names() -> None:
    rooms = {path.parent.name for path in (ROOT / "mmrec").glob("*/__init__.py")}
    assert rooms | {"errors"} == set(ROOMS)
    for name in sorted(rooms - {"cli"}):
        source = SOURCES[f"mmrec.{name}"]
        assert len((ast.get_docstring(ast.parse(source)) or "").splitlines()) in range(1, 11), name
        if name == "cluster" and find_spec("ray") is None:
            continue  # what it shows needs the extra
        module = importlib.import_module(f"mmrec.{name}")
        for public in module.__all__:
            assert getattr(module, public) is not None, f"{name}.{public}"


def test_no_file_is_too_long_to_read() -> None:
    paths = [path for folder in (*PACKAGES, "scripts") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: imports(SOURCES, name, at_import=True) & SOURCES.keys() for name in SOURCES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in graph[name] - {name}:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_public_names_are_these() -> None:
    assert set(mmrec.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(mmrec, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        mmrec.nothing  # noqa: B018


@pytest.mark.parametrize("code", ["import mmrec", "import mmrec.cli", "import encoders.base", "import fusion"])
def test_importing_costs_nothing(code: str) -> None:
    check = f"{code}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_decoding_workers_import_no_encoder() -> None:
    check = (
        "import mmrec.embedding.decoding, sys; print([m for m in ('torch', 'lancedb', 'librosa') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
