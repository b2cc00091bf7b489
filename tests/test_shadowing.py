"""A stranger's `fusion` or `encoders` in front of mmrec's own is named in one clear error."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from mmrec.errors import OWN_PACKAGES

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("embedding", "recommending", "adapting", "ranking", "searching", "tagging", "reporting", "service")
USES = (
    "import mmrec; mmrec.load_preset",
    "import mmrec; mmrec.Recommender",
    "from mmrec import embed",
    "from mmrec.embedding.presets import load_preset",
    "from mmrec.recommending import Recommender",
    "import mmrec.adapting",
)
HARMLESS = "import mmrec; mmrec.read_catalog, mmrec.FeatureStore, mmrec.MMRecError, mmrec.Features; print('fine')"
USED = "import mmrec; mmrec.embed, mmrec.Recommender; import encoders.text, fusion.config; print('fine')"

Shadows = dict[str, str]
SHADOWS: list[Shadows] = [
    {"fusion": "fusion.py"},
    {"fusion": "fusion/__init__.py"},
    {"encoders": "encoders/__init__.py"},
    {"encoders": "encoders.py"},
    {"encoders": "encoders/__init__.py", "fusion": "fusion.py"},
]
shadowed = pytest.mark.parametrize("shadows", SHADOWS, ids=lambda shadows: " ".join(shadows.values()))


def write(folder: Path, shadows: Shadows) -> list[Path]:
    paths = [folder / path for path in shadows.values()]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('the code of a stranger ran')\n")
    return paths


def python(*arguments: str | Path, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def assert_one_line(done: subprocess.CompletedProcess[str], paths: list[Path]) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mmrec: error: Python finds ") and "rename what is in the way" in line
    assert all(str(path) in line for path in paths)


@shadowed
def test_the_command_line_says_so_in_one_line(shadows: Shadows, tmp_path: Path) -> None:
    paths = write(tmp_path, shadows)
    for command in (["presets"], ["recommend", "--model", "m", "--user", "u"]):
        assert_one_line(python("-m", "mmrec", *command, cwd=tmp_path), paths)
    assert python("-m", "mmrec", "--help", cwd=tmp_path).returncode == 0


def test_the_installed_command_says_so_too(tmp_path: Path) -> None:
    script = Path(sysconfig.get_path("scripts")) / "mmrec"
    if not script.is_file():
        pytest.skip("mmrec is not installed")
    (tmp_path / "elsewhere").mkdir()
    paths = write(tmp_path, {"fusion": "fusion.py"})
    assert_one_line(python(script, "presets", cwd=tmp_path / "elsewhere", path=tmp_path), paths)
    assert python(script, "presets", cwd=tmp_path).returncode == 0  # the current folder is not on a command's path


@shadowed
def test_python_raises_an_error_of_mmrec(shadows: Shadows, tmp_path: Path) -> None:
    paths = write(tmp_path, shadows)
    for number, use in enumerate(USES):
        script = tmp_path / f"script_{number}.py"
        script.write_text(f"import mmrec\ntry:\n    {use}\nexcept mmrec.MMRecError as error:\n    print(error)\n")
        done = python(script, cwd=ROOT.parent)
        assert done.returncode == 0, done.stderr
        assert "in place of mmrec's own " + " and ".join(sorted(shadows)) in done.stdout, use
        assert all(str(path) in done.stdout for path in paths)
    assert python("-c", HARMLESS, cwd=tmp_path).stdout == "fine\n"


def test_a_module_that_was_imported_before_is_named(tmp_path: Path) -> None:
    (tmp_path / "fusion.py").write_text("")
    script = "import sys, fusion; sys.path[0:1] = []; import mmrec; mmrec.Recommender"
    assert f"MMRecError: Python finds {tmp_path / 'fusion.py'} in" in python("-c", script, cwd=tmp_path).stderr
    made = "import sys, types; sys.modules['fusion'] = types.ModuleType('fusion'); import mmrec; mmrec.Recommender"
    assert "MMRecError: Python finds a module 'fusion'" in python("-c", made, cwd=tmp_path).stderr


def test_a_path_that_is_changed_between_import_and_use(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (path,) = write(tmp_path / "x", {"fusion": "fusion.py"})
    script = f"import mmrec, sys; sys.path.insert(0, {str(path.parent)!r}); mmrec.Recommender"
    assert f"MMRecError: Python finds {path} in" in python("-c", script, cwd=tmp_path).stderr


@pytest.mark.parametrize("where", ["the current folder", "PYTHONPATH"])
def test_a_folder_without_init_is_in_nobodys_way(where: str, tmp_path: Path) -> None:
    for name in OWN_PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "test_mine.py").write_text("")
    cwd, path = (tmp_path, None) if where == "the current folder" else (ROOT.parent, tmp_path)
    done = python("-c", USED, cwd=cwd, path=path)
    assert done.stdout == "fine\n", done.stderr
    assert python("-m", "mmrec", "presets", cwd=cwd, path=path).returncode == 0


def test_a_clean_folder_and_shadows_behind_mmrec_are_fine(tmp_path: Path) -> None:
    assert python("-c", USED, cwd=tmp_path).stdout == "fine\n"
    write(tmp_path, {"encoders": "encoders/__init__.py", "fusion": "fusion.py"})
    behind = f"import sys; sys.path.append({str(tmp_path)!r}); {USED}"
    assert python("-c", behind, cwd=ROOT).stdout == "fine\n"


def copy_packages(folder: Path) -> Path:
    """mmrec as `pip install --target` puts it there."""
    for name in ("mmrec", *OWN_PACKAGES):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_another_place_of_installation_is_told_apart(tmp_path: Path) -> None:
    target, work = copy_packages(tmp_path / "target"), tmp_path / "work"
    (work / "encoders").mkdir(parents=True)
    where = f"import mmrec, fusion; assert mmrec.__file__.startswith({str(target)!r}); {USED}"
    assert python("-c", where, cwd=work, path=target).stdout == "fine\n"
    (tmp_path / "link").symlink_to(target)
    assert python("-c", USED, cwd=work, path=tmp_path / "link").stdout == "fine\n"
    (path,) = write(work, {"encoders": "encoders/__init__.py"})
    assert_one_line(python("-m", "mmrec", "presets", cwd=work, path=target), [path])


def test_packages_in_a_zip_are_told_apart(tmp_path: Path) -> None:
    archive = tmp_path / "mmrec.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(ROOT / "mmrec" / "errors.py", "mmrec/errors.py")
        for name in ("mmrec", *OWN_PACKAGES):  # without mmrec's own __init__, whose stub is read from a folder
            packed.writestr(f"{name}/__init__.py", "")
    check = (
        "import sys; from mmrec.errors import refuse_shadowed_packages as check; check(); print(sys.modules['mmrec'])"
    )
    (tmp_path / "work").mkdir()
    done = python("-c", check, cwd=tmp_path / "work", path=archive)
    assert str(archive) in done.stdout, done.stderr
    (path,) = write(tmp_path / "work", {"fusion": "fusion.py"})
    done = python("-c", check, cwd=tmp_path / "work", path=archive)
    assert f"MMRecError: Python finds {path} in" in done.stderr


def test_workers_decode_beside_a_folder_without_init(tmp_path: Path) -> None:
    from media_files import write_image

    (tmp_path / "encoders").mkdir()
    write_image(tmp_path / "a.png")
    (tmp_path / "catalog.csv").write_text("item_id,media\na,a.png\n")
    (tmp_path / "mine.yaml").write_text("visual: {kind: descriptors}\n")
    options = ("--store", "store", "--preset", "mine.yaml", "--workers", "1", "--max-failures", "0")
    done = python("-m", "mmrec", "embed", "catalog.csv", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_room_that_needs_the_packages_makes_sure_of_them() -> None:
    for path in (ROOT / "mmrec").rglob("*.py"):
        room = path.relative_to(ROOT / "mmrec").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if {name.partition(".")[0] for name in names} & set(OWN_PACKAGES):
                assert room in (*ROOMS, "cli"), f"{path} imports {names}: its room must refuse_shadowed_packages()"
    for room in ROOMS:
        assert "\nrefuse_shadowed_packages()\n" in (ROOT / "mmrec" / room / "__init__.py").read_text(encoding="utf-8")


def test_importing_stays_instant(tmp_path: Path) -> None:
    timed = "import time; t = time.perf_counter(); import mmrec; print(time.perf_counter() - t)"
    assert min(float(python("-c", timed, cwd=tmp_path).stdout) for _ in range(5)) < 0.3
