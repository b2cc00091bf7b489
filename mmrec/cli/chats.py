"""What the commands share that ask a language model: which one, what it may cost, and what it did."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmrec.cli.output import count, positive

if TYPE_CHECKING:
    from mmrec.store import FeatureStore
    from mmrec.understanding import Asker, AskReport, Budget, ChatModel, Question


CONCURRENCY = 8
HELP = "a language model that follows a chat: a folder, a GGUF file, a name on the hub or on the server"


def add_chat(
    command: argparse.ArgumentParser, *, option: str = "--chat", required: bool = True, purpose: str = ""
) -> None:
    """The options of a language model, which `option` names."""
    command.add_argument(option, default="", required=required, metavar="DIR|NAME", help=purpose + HELP)
    command.add_argument(
        "--server", default="", metavar="URL", help="ask this server for the model (OpenAI's protocol)"
    )
    command.add_argument("--device", default="auto", help="auto, cpu or cuda, of models on this machine")
    command.add_argument(
        "--concurrency",
        type=count,
        default=0,
        metavar="N",
        help="questions at once (default: 8 to a server, 1 on this machine's processor, 16 on a GPU by transformers)",
    )
    command.add_argument("--max-tokens", type=count, metavar="N", help="read and written, then stop asking")
    command.add_argument("--max-cost", type=positive, metavar="MONEY", help="by the prices, then stop asking")
    command.add_argument("--price-read", type=float, default=0.0, metavar="MONEY", help="of a million tokens read")
    command.add_argument(
        "--price-written", type=float, default=0.0, metavar="MONEY", help="of a million tokens written"
    )
    command.add_argument("--dry-run", action="store_true", help="say what asking the model would take, and stop")
    command.add_argument("--retry-failed", action="store_true", help="ask again what failed before")


def open_chat(arguments: argparse.Namespace, name: str) -> ChatModel:
    from mmrec.understanding import ServerChat, open_local

    if arguments.server or (os.environ.get("OPENAI_BASE_URL") and not os.path.exists(name)):
        return ServerChat(name, url=arguments.server, concurrency=arguments.concurrency or CONCURRENCY)
    return open_local(name, device=arguments.device, batch_size=arguments.concurrency)


def budget_of(arguments: argparse.Namespace) -> Budget:
    from mmrec.understanding import Budget

    return Budget(
        tokens=arguments.max_tokens,
        money=arguments.max_cost,
        price_read=arguments.price_read,
        price_written=arguments.price_written,
    )


def open_asker(arguments: argparse.Namespace, name: str, store: FeatureStore | None) -> Asker:
    from mmrec.understanding import Asker

    model, budget = open_chat(arguments, name), budget_of(arguments)
    return Asker(model, store, budget=budget, retry_failed=arguments.retry_failed)


def print_estimate(arguments: argparse.Namespace, asker: Asker, questions: Iterable[Question]) -> int:
    """The answer of a dry run."""
    asked = asker.estimate(questions)
    words = f"{asked.questions} questions, about {asked.tokens_read} tokens to read, {asked.tokens_written} to write"
    print(json.dumps(asked.__dict__) if arguments.json else f"{words}{money(asked.cost, budget_of(arguments))}")
    return 0


def asked_words(report: AskReport, budget: Budget) -> str:
    """What was asked, in words."""
    counts = {"answered": report.answered, "known before": report.known, "failed": report.failed, "left": report.left}
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "nothing was asked"
    reasons = "".join(f", {reason} {number}" for reason, number in report.reasons.most_common())
    tokens = f"; {report.tokens_read} tokens read, {report.tokens_written} written" if report.tokens_read else ""
    return f"questions: {said}{reasons}{tokens}{money(report.cost, budget)}"


def money(cost: float, budget: Budget) -> str:
    return f", {cost:.4f} in money" if budget.price_read or budget.price_written else ""
