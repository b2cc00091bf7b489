"""The description of the API: nothing that fits it makes a failure, and the TypeScript types follow it."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from served import config_of
from starlette.testclient import TestClient

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from mmrec.service import ServiceConfig, create_app  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = 6
HERE = {"Host": "127.0.0.1"}


@pytest.fixture(scope="module")
def api_schema(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a service that may be changed; the model's files are its own."""
    folder = tmp_path_factory.mktemp("described")
    shutil.copytree(served / "model", folder / "model")
    shutil.copytree(served / "store", folder / "store")
    app = create_app(config_of(folder, folder / "interactions.sqlite"))
    with TestClient(app):  # opens what it serves
        yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=HERE)


@pytest.mark.parametrize("fits", [True, False])
def test_nothing_makes_the_service_fail(api_schema: Any, fits: bool) -> None:
    """Neither requests that fit the description, nor those that do not."""
    mode = schemathesis.GenerationMode.POSITIVE if fits else schemathesis.GenerationMode.NEGATIVE
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.response_schema_conformance,
        schemathesis.checks.content_type_conformance,
    ]
    tried = set()
    for found in api_schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        def nothing_fails(case: Any) -> None:
            case.call_and_validate(headers=HERE, checks=checks)
            tried.add(case.operation.label)

        with suppress(Unsatisfiable):  # what takes nothing is never wrong
            nothing_fails()
    assert len(tried) >= (22 if fits else 15)


def test_the_types_for_typescript_are_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "typescript_types.py"))
    made = script["typescript"](create_app(ServiceConfig(store="store")).openapi())
    assert (ROOT / "clients" / "mmrec.d.ts").read_text(encoding="utf-8") == made, "run scripts/typescript_types.py"
