"""The command that serves a store and models over HTTP."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrec.cli.output import add_command, add_fold, add_store, count, place, positive
from mmrec.errors import MMRecError, ServiceError

OPTION, TOKEN_VARIABLE = "--token", "MMREC_TOKEN"


def add_serve_command(commands: Any) -> None:
    serve = add_command(commands, "serve", _serve, "answer over HTTP: a JSON API, and a page to explore")
    add_store(serve)
    serve.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a fitted model; the first answers by default, others go by the names of their folders",
    )
    serve.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="the SQLite file of live interactions (default: MODEL.interactions.sqlite)",
    )
    serve.add_argument(
        "--media-root",
        type=place,
        metavar="DIR|URL",
        help="serve media below it alone, links resolved (default: as found)",
    )
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="serve https:// media from it (repeatable)"
    )
    add_fold(serve)
    serve.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1; any other needs a token)")
    serve.add_argument("--port", type=int, default=8000, help="(default: 8000; 0 is any that is free)")
    token = serve.add_mutually_exclusive_group()
    token.add_argument("--token", metavar="TEXT", help=f"what clients must know (default: variable {TOKEN_VARIABLE})")
    token.add_argument("--token-file", type=Path, metavar="FILE", help="a file that holds it")
    serve.add_argument("--workers", type=count, default=1, metavar="N", help="processes that answer (default: 1)")
    serve.add_argument(
        "--max-upload", type=positive, default=64.0, metavar="MIB", help="of a file to search by (default: 64)"
    )
    serve.add_argument(
        "--rate", type=_rate, default=200.0, metavar="N", help="requests a second of one client (default: 200; 0: any)"
    )


def add_export_interactions_command(commands: Any) -> None:
    words = "write what the service was told of users as a file of interactions"
    export = add_command(commands, "export-interactions", _export_interactions, words)
    export.add_argument("--state", type=Path, required=True, metavar="FILE", help="the SQLite file of the service")
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .csv or .parquet file, as --interactions take it"
    )


def _export_interactions(arguments: argparse.Namespace) -> int:
    from mmrec.evaluation import write_interactions
    from mmrec.service import InteractionLog

    if not arguments.state.is_file():
        raise ServiceError(f"there is no file {arguments.state}: expected that of live interactions of `mmrec serve`")
    interactions = InteractionLog(arguments.state).interactions()
    if interactions is None:
        raise ServiceError(f"{arguments.state} has no interactions: nobody told the service of any")
    write_interactions(interactions, arguments.out)
    print(f"{len(interactions)} interactions of {len(interactions.user_ids)} users in {arguments.out}")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from mmrec.service import JsonFormatter, ServiceConfig, serve
    except ImportError as error:
        raise MMRecError(f"mmrec serve needs the extra `service`: pip install 'mmrec[service]' ({error})") from None

    config = ServiceConfig(
        store=arguments.store,
        encoder_set=arguments.set,
        models=arguments.model,
        state=arguments.state,
        media_root=arguments.media_root,
        allow_hosts=arguments.allow_host,
        fold=arguments.fold,
        host=arguments.host,
        port=arguments.port,
        token=_token(arguments),
        workers=arguments.workers,
        max_upload_bytes=int(arguments.max_upload * 2**20),
        requests_per_second=arguments.rate,
    )
    for handler in logging.getLogger().handlers:
        if type(handler) in (logging.StreamHandler, logging.FileHandler):  # those of the command line
            handler.setFormatter(JsonFormatter())
            handler.setLevel(logging.INFO)
    serve(config)
    return 0


def _token(arguments: argparse.Namespace) -> str:
    if arguments.token is not None:
        return str(arguments.token)
    if arguments.token_file is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        token = arguments.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"{arguments.token_file} cannot be read as a token: {error}") from None
    if not token:
        raise ServiceError(f"{arguments.token_file} holds no token")
    return str(token)


def _rate(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no rate: expected 0 or more")
    return number


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command line as logs may have it."""
    hidden = [f"{OPTION}=..." if word.startswith(f"{OPTION}=") else word for word in words]
    return ["..." if before == OPTION else word for before, word in zip(["", *hidden], hidden, strict=False)]
