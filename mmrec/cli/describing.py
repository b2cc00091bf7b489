"""The command that writes titles, blurbs and tags for items."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.chats import add_chat, asked_words, budget_of, open_asker, print_estimate
from mmrec.cli.output import add_command, add_json, add_store, fail, open_store, share
from mmrec.cli.progress import stop_on_sigterm

if TYPE_CHECKING:
    from mmrec.understanding import Described


def add_describe_command(commands: Any) -> None:
    summary = "write titles, a blurb and tags for items, by what is known of them"
    describe = add_command(commands, "describe", _describe, summary)
    add_store(describe)
    which = describe.add_mutually_exclusive_group(required=True)
    which.add_argument("--item", action="append", metavar="ID", help="this item; may be given again")
    which.add_argument("--all", action="store_true", help="every item of the store")
    add_chat(describe)
    describe.add_argument("--language", default="", metavar="CODE", help="to write in (default: the item's own)")
    describe.add_argument("--out", type=Path, metavar="FILE", help="write them there, one JSON object a line")
    describe.add_argument("--max-failures", type=share, default=0.1, metavar="SHARE", help="(default: 0.1)")
    add_json(describe)


def _describe(arguments: argparse.Namespace) -> int:
    from mmrec.understanding import describe, describe_questions

    store = open_store(arguments)
    asker = open_asker(arguments, arguments.chat, store)
    if arguments.dry_run:
        asked = describe_questions(store, arguments.item, language=arguments.language)
        return print_estimate(arguments, asker, (question for _, question in asked))
    opened = nullcontext(sys.stdout) if arguments.out is None else arguments.out.open("w", encoding="utf-8")
    with stop_on_sigterm(), opened as file:
        for found in describe(store, asker, arguments.item, language=arguments.language):
            as_json = arguments.json or arguments.out is not None
            print(json.dumps(_to_dict(found), ensure_ascii=False) if as_json else _words(found), file=file)
    report = asker.report
    print(f"mmrec: {asked_words(report, budget_of(arguments))}", file=sys.stderr)
    if report.share_failed() > arguments.max_failures:
        return fail(f"{report.failed} answers failed: more than --max-failures {arguments.max_failures:g} allows")
    return 0


def _to_dict(found: Described) -> dict[str, Any]:
    said = {"item_id": found.item_id}
    if found.description is not None:
        return said | found.description.model_dump()
    return said | ({"reason": found.problem.reason, "detail": found.problem.detail} if found.problem else {})


def _words(found: Described) -> str:
    if found.description is None:
        return f"{found.item_id}: {found.problem.reason if found.problem else 'left, the budget is spent'}"
    said = found.description
    lines = [f"{found.item_id}  {' / '.join(said.titles)}", f"  {said.blurb}", f"  {', '.join(said.tags)}"]
    return "\n".join(line for line in lines if line.strip())
