"""The command that says why an item is recommended."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmrec.cli.chats import add_chat, open_asker, print_estimate
from mmrec.cli.output import add_command, add_json, add_model, place
from mmrec.errors import ChatError

if TYPE_CHECKING:
    from mmrec.recommending import Cause, Explanation, Moment, Recommender
    from mmrec.store import FeatureStore

PARTS = {"visual": "its pictures", "audio": "its sound", "text": "its words", "content": "its content", "id": "its id"}
LEAST = 5e-4  # what three decimals show
MOMENTS = 5


def add_explain_command(commands: Any) -> None:
    explain = add_command(commands, "explain", _explain, "why an item stands where it does in a user's list")
    add_model(explain)
    explain.add_argument("--user", required=True, metavar="ID")
    explain.add_argument("--item", required=True, metavar="ID")
    explain.add_argument(
        "--store", type=place, metavar="DIR|URL", help="the store that the model was fitted to: tells modalities apart"
    )
    explain.add_argument("--top", type=int, default=5, help="items of the history to look at closely (default: 5)")
    add_chat(explain, option="--in-words", required=False, purpose="tell it in words by ")
    explain.add_argument("--language", default="", metavar="CODE", help="to write in, with --in-words")
    add_json(explain)


def _explain(arguments: argparse.Namespace) -> int:
    from mmrec.recommending import Recommender
    from mmrec.store import FeatureStore

    model = Recommender.load(arguments.model)
    store = None if arguments.store is None else FeatureStore(arguments.store)
    explanation = model.explain(arguments.user, arguments.item, store=store, top=arguments.top)
    if arguments.in_words:
        return _in_words(arguments, model, explanation, store)
    if arguments.dry_run:
        raise ChatError("--dry-run says what --in-words would take: name a language model by it")
    if arguments.json:
        print(json.dumps(explanation.to_dict(), ensure_ascii=False))
    else:
        print("\n".join(_lines(explanation, arguments.top)))
    return 0


def _in_words(
    arguments: argparse.Namespace, model: Recommender, explanation: Explanation, store: FeatureStore | None
) -> int:
    from mmrec.understanding import why_in_words, why_question

    asker = open_asker(arguments, arguments.in_words, store)
    if arguments.dry_run:
        return print_estimate(arguments, asker, [why_question(explanation, language=arguments.language)])
    titles = [title for item_id in model.item_ids if (title := str(model.item(item_id).get("title") or ""))]
    told = why_in_words(explanation, asker, titles=titles, language=arguments.language)
    if arguments.json:
        said = {"in_words": told.text, "in_words_problem": told.problem, "asked": asker.report.as_dict()}
        print(json.dumps(explanation.to_dict() | said, ensure_ascii=False))
        return 0
    print(told.text)
    if told.problem:
        print(f"mmrec: computed, not written: {told.problem}", file=sys.stderr)
    return 0


def _lines(why: Explanation, top: int) -> Iterator[str]:
    seen = ", which is in the history" if why.is_seen else ""
    yield f"{why.item_id}  {why.title}".rstrip() + seen
    yield f"for {why.user_id} at place {why.place} of {why.num_ranked}, score {why.score:.3f}"
    yield from why.sentences()
    yield "\nthe score by what the item is"
    for part in why.parts:
        yield f"  {part.contribution:8.3f}  {PARTS[part.name]} (without: place {part.place_without})"
    yield f"  {why.popularity:8.3f}  its popularity, above {why.more_popular_than:.0%} of all items"
    yield "the score by the history"
    yield from _history(why.history, top)
    yield f"  {why.anyone:8.3f}  what it gets from anybody"
    if abs(why.rest) >= LEAST:
        yield f"  {why.rest:8.3f}  words, and items that left"
    yield f"  {why.popularity:8.3f}  its popularity"
    if why.moments:
        yield "what its score would lose without"
        yield from map(_moment, why.moments[:MOMENTS])
    yield "how this was found"
    for name, method in why.methods.items():
        yield f"  {name}: {method}"


def _history(causes: list[Cause], top: int) -> Iterator[str]:
    """The causes that matter most, either way, and the sum of the others."""
    main = sorted(causes, key=lambda cause: -abs(cause.contribution))[:top]
    for cause in sorted(main, key=lambda cause: -cause.contribution):
        without = "" if cause.place_without is None else f" (without: place {cause.place_without})"
        times = f", {cause.times} times" if cause.times > 1 else ""
        yield f"  {cause.contribution:8.3f}  {f'{cause.item_id}  {cause.title}'.rstrip()}{times}{without}"
    if rest := len(causes) - len(main):
        others = sum(cause.contribution for cause in causes) - sum(cause.contribution for cause in main)
        yield f"  {others:8.3f}  {rest} other{'s' if rest > 1 else ''}"


def _moment(moment: Moment) -> str:
    when = "" if moment.seconds is None else f", {moment.when}"
    return f"  {moment.contribution:8.3f}  {PARTS[moment.modality]}: {moment.number} of {moment.count}{when}"
