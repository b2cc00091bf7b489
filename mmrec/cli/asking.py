"""The command that searches by a wish in plain words."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mmrec.cli.chats import add_chat, asked_words, budget_of, open_asker, print_estimate
from mmrec.cli.output import add_command, add_json, add_store, count, fail, open_store
from mmrec.cli.searching import print_items, print_moments, taste_of_user


def add_ask_command(commands: Any) -> None:
    summary = "find items by a wish in plain words, which a language model turns into a search"
    ask = add_command(commands, "ask", _ask, summary)
    ask.add_argument("words", help="the wish, as 'something calm for the evening, no piano', in any language")
    add_store(ask)
    add_chat(ask)
    ask.add_argument("--user", metavar="ID", help="rank what was found by what they like as well")
    ask.add_argument("--model", type=Path, metavar="DIR", help="the fitted model that knows the user")
    ask.add_argument("--k", type=count, default=10, help="where the wish names no number (default: 10)")
    add_json(ask)


def _ask(arguments: argparse.Namespace) -> int:
    from mmrec.searching import Searcher
    from mmrec.understanding import ask, wish_question_of

    store = open_store(arguments)
    searcher, asker = Searcher(store), open_asker(arguments, arguments.chat, store)
    if arguments.dry_run:
        return print_estimate(arguments, asker, [wish_question_of(searcher, arguments.words)])
    found = ask(searcher, arguments.words, asker, taste=taste_of_user(arguments), k=arguments.k)
    if arguments.json:
        titles = searcher.tables.titles(ids) if (ids := [*found.item_ids, *(m.item_id for m in found.moments)]) else {}
        said = found.to_dict() | {"asked": asker.report.as_dict()}
        for item in (*said["items"], *said["moments"]):
            item["title"] = titles.get(item["item_id"], "")
        print(json.dumps(said, ensure_ascii=False))
        return 0
    print(found.understood.sentence())
    if found.understood.moments:
        num_found = print_moments(searcher, found.moments, as_json=False)
    else:
        num_found = print_items(searcher, found.item_ids, found.scores.tolist(), as_json=False)
    print(asked_words(asker.report, budget_of(arguments)))
    return 0 if num_found else fail("nothing was found")
