"""The command that finds out what is heard, seen and meant in the items of a store."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmrec.cli.chats import add_chat, budget_of, money, open_chat
from mmrec.cli.output import add_command, add_json, add_store, fail, open_store, positive, share
from mmrec.cli.progress import stop_on_sigterm, understand_progress
from mmrec.errors import ChatError

if TYPE_CHECKING:
    from mmrec.understanding import Budget, UnderstandReport

TASKS = ("heard", "seen", "about")


def add_understand_command(commands: Any) -> None:
    summary = "find out what is heard, seen and meant in the items: speech, text on screen, topics and summaries"
    understand = add_command(commands, "understand", _understand, summary)
    add_store(understand)
    understand.add_argument(
        "--tasks", default="", metavar="LIST", help="as heard,seen or about (default: all that are possible)"
    )
    understand.add_argument(
        "--speech-model", default="", metavar="DIR|NAME", help="Whisper in CTranslate2's form, as small: for heard"
    )
    add_chat(understand, option="--model", required=False)
    understand.add_argument("--language", default="", metavar="CODE", help="to write in (default: the item's own)")
    understand.add_argument("--workers", type=int, default=0, metavar="N", help="decoding processes (default: all)")
    understand.add_argument(
        "--timeout", type=positive, default=600.0, metavar="SECONDS", help="to decode one item (default: 600)"
    )
    understand.add_argument("--max-failures", type=share, default=0.1, metavar="SHARE", help="(default: 0.1)")
    add_json(understand)


def _understand(arguments: argparse.Namespace) -> int:
    from mmrec.embedding import DecodeLimits
    from mmrec.understanding import ScreenReader, Transcriber, estimate, understand

    store, tasks = open_store(arguments), _tasks(arguments)
    budget = budget_of(arguments)
    model = open_chat(arguments, arguments.model) if "about" in tasks else None
    if arguments.dry_run:
        if model is None:
            raise ChatError("--dry-run says what asking a language model would take: name one by --model")
        asked = estimate(store, model, language=arguments.language, budget=budget)
        words = (
            f"{asked.questions} questions, about {asked.tokens_read} tokens to read, {asked.tokens_written} to write"
        )
        print(json.dumps(asked.__dict__) if arguments.json else f"{words}{money(asked.cost, budget)}")
        return 0
    with stop_on_sigterm():
        report = understand(
            store,
            speech=Transcriber(arguments.speech_model, device=arguments.device) if "heard" in tasks else None,
            screen=ScreenReader() if "seen" in tasks else None,
            model=model,
            language=arguments.language,
            retry_failed=arguments.retry_failed,
            budget=budget,
            limits=DecodeLimits(workers=arguments.workers, timeout_seconds=arguments.timeout),
            progress=understand_progress(),
        )
    print(json.dumps(report.as_dict()) if arguments.json else "\n".join(_lines(report, tasks, budget)))
    if report.share_failed() > arguments.max_failures:
        return fail(
            f"{report.failed.total()} findings failed, {report.share_failed():.0%} of those tried: more than "
            f"--max-failures {arguments.max_failures:g} allows"
        )
    return 0


def _tasks(arguments: argparse.Namespace) -> list[str]:
    named = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    for name in named:
        if name not in TASKS:
            raise ChatError(f"task {name!r}: expected some of {', '.join(TASKS)}")
    if "heard" in named and not arguments.speech_model:
        raise ChatError("the task heard needs a speech model: name one by --speech-model, as small or a folder")
    if "about" in named and not arguments.model:
        raise ChatError(
            "the task about needs a language model: name one by --model, with --server where it runs on one"
        )
    if named:
        return named
    able = {"heard": arguments.speech_model, "seen": find_spec("rapidocr") is not None, "about": arguments.model}
    lacking = {"heard": "--speech-model", "seen": "pip install 'mmrec[ocr]'", "about": "--model"}
    left_out = [f"{task} ({needed})" for task, needed in lacking.items() if not able[task]]
    if not any(able.values()):
        raise ChatError(f"there is nothing to find out by; what each task needs: {', '.join(left_out)}")
    if left_out:
        print(f"mmrec: not done: {', '.join(left_out)}", file=sys.stderr)
    return [task for task in TASKS if able[task]]


def _lines(report: UnderstandReport, tasks: list[str], budget: Budget) -> list[str]:
    lines = [f"{report.items} items in {report.seconds:.1f} s"]
    for task in tasks:
        counts = {"found": report.found, "empty": report.empty, "failed": report.failed, "known before": report.known}
        counts |= {"left": report.left}
        lines.append(f"  {task:6}" + ", ".join(f"{of[task]} {name}" for name, of in counts.items() if of[task]))
    if report.reasons:
        lines.append("  " + ", ".join(f"{reason} {number}" for reason, number in report.reasons.most_common()))
    if report.tokens_read:
        tokens = f"  {report.tokens_read} tokens read, {report.tokens_written} written"
        lines.append(tokens + money(report.cost, budget))
    if report.found["heard"] or report.found["seen"]:
        lines.append("embed the catalog again to take the words up: nothing but text is encoded")
    return lines
