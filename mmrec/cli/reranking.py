"""Lists of `mmrec recommend` ranked again by a language model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.chats import add_chat, asked_words, budget_of, open_asker, print_estimate
from mmrec.cli.output import count
from mmrec.errors import ChatError

if TYPE_CHECKING:
    from mmrec.recommending import Recommender
    from mmrec.understanding import Asker, Candidates, Reranked, Reranker

Ranked = tuple[str, Any, Any]
"""A user, and the ids and scores of a list."""


def add_rerank(command: argparse.ArgumentParser) -> None:
    add_chat(command, option="--rerank", required=False, purpose="rank the best again, with reasons, by ")
    command.add_argument("--rerank-depth", type=count, default=50, metavar="N", help="how many (default: 50)")
    command.add_argument(
        "--shuffles", type=count, default=2, metavar="N", help="times that a list is asked about (default: 2)"
    )
    command.add_argument(
        "--store", type=Path, metavar="DIR", help="tells summaries to --rerank, and keeps what it answered"
    )


@dataclass(frozen=True, slots=True)
class Reranking:
    """How lists are ranked again, and printed."""

    arguments: argparse.Namespace
    model: Recommender
    asker: Asker
    reranker: Reranker

    @property
    def depth(self) -> int:
        return max(int(self.arguments.k), int(self.arguments.rerank_depth))

    def print_lists(self, lists: Iterable[Ranked]) -> int:
        before = [
            (user, {str(i): float(s) for i, s in zip(ids, scores, strict=True) if i}) for user, ids, scores in lists
        ]
        candidates = [self._candidates(user, list(scores)) for user, scores in before]
        if self.arguments.dry_run:
            return print_estimate(self.arguments, self.asker, self.reranker.questions(candidates))
        for (user, scores), found in zip(before, self.reranker.rerank(candidates), strict=True):
            self._print(user, scores, found)
        print(f"mmrec: {asked_words(self.asker.report, budget_of(self.arguments))}", file=sys.stderr)
        return 0

    def _candidates(self, user: str, item_ids: list[str]) -> Candidates:
        from mmrec.understanding import Candidates

        said = {"likes": self.arguments.text or "", "does not want": self.arguments.not_text}
        words = "; ".join(f"{name} {words}" for name, words in said.items() if words)
        return Candidates(item_ids=item_ids, user_id=user, words=words)

    def _print(self, user: str, scores: dict[str, float], found: Reranked) -> None:
        before = {item_id: place for place, item_id in enumerate(scores, start=1)}
        items = [
            {
                "item_id": item_id,
                "score": scores[item_id],
                "title": self.model.item(item_id)["title"],
                "place_before": before[item_id],
                "reason": found.reasons.get(item_id, ""),
            }
            for item_id in found.item_ids[: self.arguments.k]
        ]
        if self.arguments.json:
            said = {"user_id": user, "items": items, "num_answers": found.num_answers}
            print(json.dumps(said, ensure_ascii=False))
            return
        as_before = "" if found.num_answers else ", in the order of the model: there was no answer"
        print((user or "for these words") + as_before)
        for place, item in enumerate(items, start=1):
            named = f"{item['item_id']}  {item['title']}".rstrip()
            reason = f": {item['reason']}" if item["reason"] else ""
            print(f"  {place:3} (was {item['place_before']:3})  {named}{reason}")


def open_reranking(arguments: argparse.Namespace, model: Recommender) -> Reranking | None:
    if not arguments.rerank:
        if arguments.dry_run:
            raise ChatError("--dry-run says what --rerank would take: name a language model by it")
        return None
    if arguments.out is not None:
        raise ChatError(
            "--out writes the lists of the model; those of --rerank are printed, and --json makes them JSON"
        )
    from mmrec.store import FeatureStore
    from mmrec.understanding import Reranker

    store = None if arguments.store is None else FeatureStore(arguments.store)
    asker = open_asker(arguments, arguments.rerank, store)
    return Reranking(arguments, model, asker, Reranker(model, asker, store=store, shuffles=arguments.shuffles))
