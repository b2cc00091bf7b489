"""The command that puts users into words, and makes interactions of their comments."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.chats import add_chat, asked_words, budget_of, open_asker, print_estimate
from mmrec.cli.output import add_command, add_json, add_model, add_store, fail, open_store, share
from mmrec.cli.progress import stop_on_sigterm
from mmrec.cli.rankings import named_users
from mmrec.errors import ChatError

if TYPE_CHECKING:
    from mmrec.understanding import Asker, Comment, Profiles, Weighed


def add_profiles_command(commands: Any) -> None:
    summary = "what users like and dislike, in words with evidence, by their histories and by what they wrote"
    profiles = add_command(commands, "profiles", _profiles, summary)
    add_model(profiles)
    add_store(profiles)
    who = profiles.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="ID")
    who.add_argument("--users", type=Path, metavar="FILE", help="one id a line")
    who.add_argument("--all", action="store_true", help="every user of the model and of --comments")
    add_chat(profiles)
    profiles.add_argument(
        "--comments", type=Path, metavar="FILE", help="what users wrote: user_id, text and, where known, item_id, kind"
    )
    profiles.add_argument(
        "--validation", type=Path, metavar="FILE", help="held-out interactions that choose how much the words count"
    )
    profiles.add_argument("--out", type=Path, metavar="FILE", help="write the profiles there, for recommend --profiles")
    profiles.add_argument(
        "--weights-out", type=Path, metavar="FILE", help="write what comments are worth, .csv or .parquet, for fit"
    )
    profiles.add_argument("--max-failures", type=share, default=0.1, metavar="SHARE", help="(default: 0.1)")
    add_json(profiles)


def _profiles(arguments: argparse.Namespace) -> int:
    from mmrec.recommending import Recommender
    from mmrec.understanding import comment_question, profile_questions, read_comments

    if arguments.weights_out is not None and arguments.comments is None:
        raise ChatError("--weights-out is made of comments: name them by --comments")
    model, store = Recommender.load(arguments.model), open_store(arguments)
    comments = [] if arguments.comments is None else read_comments(arguments.comments)
    written = [comment.user_id for comment in comments]
    users = [*model.user_ids, *written] if arguments.all else named_users(arguments)
    asker = open_asker(arguments, arguments.chat, store)
    if arguments.dry_run:
        of_items = [one for one in comments if one.item_id] if arguments.weights_out is not None else []
        asked = profile_questions(model, users, store=store, comments=comments)
        return print_estimate(arguments, asker, chain(asked, map(comment_question, of_items)))
    with stop_on_sigterm():
        profiles = _made(arguments, model, store, asker, users, comments)
        weighed = _weighed(arguments, comments, asker)
    if arguments.json:
        said = {"profiles": [profile.to_dict() for profile in profiles.of.values()], **profiles.chosen.__dict__}
        print(json.dumps(said | {"comments": len(weighed), "asked": asker.report.as_dict()}, ensure_ascii=False))
    else:
        _print(arguments, profiles, weighed)
        print(f"mmrec: {asked_words(asker.report, budget_of(arguments))}", file=sys.stderr)
    if asker.report.share_failed() > arguments.max_failures:
        return fail(f"{asker.report.failed} answers failed: more than --max-failures {arguments.max_failures:g} allows")
    return 0


def _made(
    arguments: argparse.Namespace, model: Any, store: Any, asker: Asker, users: Sequence[str], comments: list[Comment]
) -> Profiles:
    from mmrec.understanding import Profiles, ProfileWeight, choose_weight, make_profiles

    made = {one.user_id: one for one in make_profiles(model, asker, users, store=store, comments=comments)}
    chosen = ProfileWeight()
    if arguments.validation is not None:
        chosen = choose_weight(model, list(made.values()), arguments.validation)
    profiles = Profiles(of=made, chosen=chosen)
    if arguments.out is not None:
        profiles.write(arguments.out)
    return profiles


def _weighed(arguments: argparse.Namespace, comments: list[Comment], asker: Asker) -> list[Weighed]:
    from mmrec.evaluation import write_interactions
    from mmrec.understanding import interactions_of, weigh_comments

    if arguments.weights_out is None:
        return []
    weighed = list(weigh_comments(comments, asker))
    write_interactions(interactions_of(weighed), arguments.weights_out)
    return weighed


def _print(arguments: argparse.Namespace, profiles: Profiles, weighed: list[Weighed]) -> None:
    if arguments.out is None:
        for profile in profiles.of.values():
            print(f"{profile.user_id}: {profile.text or 'nothing that has evidence'}")
    else:
        print(f"{len(profiles.of)} profiles in {arguments.out}")
    if dropped := sum(profile.dropped for profile in profiles.of.values()):
        print(f"{dropped} statements had no evidence and were left out")
    if arguments.validation is not None:
        chosen = profiles.chosen
        tried = ", ".join(f"{weight}: {score:.4f}" for weight, score in chosen.scores.items())
        print(f"the words count {chosen.weight:g} beside a history of 1, by {chosen.num_users} users; Recall@20 plus")
        print(f"NDCG@20 by weight: {tried}; p of the best against 0: {chosen.p_value:.3f}")
    if arguments.weights_out is not None:
        print(f"{len(weighed)} comments on items in {arguments.weights_out}")
