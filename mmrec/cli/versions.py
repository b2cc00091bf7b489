"""The commands that list and take back versions of a model, and those that change one without a fit."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import add_command, add_json, add_keep, add_model, add_store, open_store, place
from mmrec.errors import ModelError

if TYPE_CHECKING:
    from mmrec.recommending import Recommender


def add_version_commands(commands: Any) -> None:
    models = add_command(commands, "models", _models, "list the versions of a model")
    add_model(models)
    add_json(models)

    back = add_command(commands, "rollback", _rollback, "make an earlier version of a model the current one again")
    add_model(back)
    back.add_argument("--version", type=int, metavar="N", help="(default: the one before the current)")

    update = add_command(commands, "update-items", _update_items, "make the vectors of items anew; new items join")
    add_model(update)
    add_store(update)
    _add_items(update)
    add_keep(update)

    remove = add_command(commands, "remove-items", _remove_items, "take items out of a model")
    add_model(remove)
    _add_items(remove)
    add_keep(remove)

    forget = add_command(
        commands, "forget-user", _forget_user, "delete a user's history from a model, and its earlier versions"
    )
    add_model(forget)
    forget.add_argument("--user", required=True, metavar="ID")
    forget.add_argument(
        "--store", type=place, metavar="DIR|URL", help="delete what language models answered about them there as well"
    )
    forget.add_argument(
        "--profiles", type=Path, metavar="FILE", help="and what `mmrec profiles` wrote about them in this file"
    )


def _add_items(command: argparse.ArgumentParser) -> None:
    command.add_argument("--items", nargs="+", required=True, metavar="ID", help="ids, or one file with one id a line")


def _models(arguments: argparse.Namespace) -> int:
    from mmrec.recommending import list_versions

    versions = list_versions(arguments.model)
    if arguments.json:
        print(json.dumps([asdict(version) for version in versions]))
        return 0
    for version in versions:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in version.validation.items())
        mark = "*" if version.is_current else " "
        sizes = f"{version.items} items, {version.users} users"
        print(f"{mark}{version.number:5}  {version.saved_at}  {sizes}  {figures}".rstrip())
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    from mmrec.recommending import rollback

    print(f"version {rollback(arguments.model, arguments.version)} is the current one of {arguments.model}")
    return 0


def _update_items(arguments: argparse.Namespace) -> int:

    store, items = open_store(arguments), _named_items(arguments.items)

    def change(model: Recommender) -> str:
        known = set(model.item_ids)
        there = [item for item in items if item in known]
        new = [item for item in items if item not in known]
        model.update_items(store, there)
        model.embed_items(store, new)
        return f"{len(there)} items made anew, {len(new)} joined"

    return _change(arguments.model, change, arguments.keep)


def _remove_items(arguments: argparse.Namespace) -> int:
    items = _named_items(arguments.items)

    def change(model: Recommender) -> str:
        model.remove_items(items)
        return f"{len(items)} items removed"

    return _change(arguments.model, change, arguments.keep)


def _forget_user(arguments: argparse.Namespace) -> int:
    user, told = arguments.user, _forget_words(arguments)

    def change(model: Recommender) -> str:
        if told and user not in model.user_ids:
            return f"{told}; the model knows no user {user}; all its earlier versions deleted"
        model.forget_user(user)
        return "; ".join(filter(None, [f"user {user} forgotten, and all earlier versions deleted", told]))

    return _change(arguments.model, change, 1)


def _forget_words(arguments: argparse.Namespace) -> str:
    """Delete what is told of a user in words; says what there was, nothing where there was none."""
    from mmrec.store import FeatureStore, StoredAnswers
    from mmrec.understanding import Profiles

    told = []
    if arguments.store is not None and (count := StoredAnswers(FeatureStore(arguments.store)).forget(arguments.user)):
        told.append(f"{count} answers of language models deleted from {arguments.store}")
    if arguments.profiles is not None:
        profiles = Profiles.read(arguments.profiles)
        if arguments.user in profiles.of:
            profiles.without(arguments.user).write(arguments.profiles)
            told.append(f"a profile deleted from {arguments.profiles}")
    return ", ".join(told)


def _change(folder: Path, change: Callable[[Recommender], str], keep: int) -> int:
    """Publish a changed model; no other job changes it meanwhile."""
    from mmrec.recommending import Recommender, current_version, model_lock

    current_version(folder)
    with model_lock(folder):
        model = Recommender.load(folder)
        what = change(model)
        version = model.save(folder, keep=keep)
    print(f"{what}; in {folder} as version {version}")
    return 0


def _named_items(words: list[str]) -> list[str]:
    if len(words) > 1 or not Path(words[0]).is_file():
        return list(dict.fromkeys(words))
    try:
        lines = Path(words[0]).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{words[0]} cannot be read as one item id a line: {error}") from None
    return list(dict.fromkeys(line for line in lines if line.strip()))
