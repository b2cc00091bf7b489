"""Whether words about users, and lists ranked again by a language model, find more of what users took later.

    python scripts/bench_users_in_words.py --model MODEL --store STORE --validation FILE --test FILE
        [--chat MODEL] [--profiles N] [--lists N] [--depth 50]

MODEL is fitted to the interactions before those of both files. First without a language model: words by rule, the
three commonest tags of each history. With --chat: profiles of N users, and N lists ranked again. How much words count
is chosen on the validation part; each figure is of the test part, run once, with the p-value of a paired permutation
test. What the users took in the validation part stays in the lists, with and without.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from benching import describe_machine
from numpy.typing import NDArray

import mmrec
from mmrec.evaluation import compare, rank_metrics, read_interactions
from mmrec.understanding import (
    Asker,
    Candidates,
    Profile,
    Profiles,
    Reranker,
    Trait,
    choose_weight,
    make_profiles,
    open_local,
)

K, TAGS = 20, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--store", "--validation", "--test"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--chat", default="")
    parser.add_argument("--profiles", type=int, default=0)
    parser.add_argument("--lists", type=int, default=0)
    parser.add_argument("--depth", type=int, default=50)
    arguments = parser.parse_args()
    model, store = mmrec.Recommender.load(arguments.model), mmrec.FeatureStore(arguments.store)
    tested = read_interactions(arguments.test, item_ids=model.item_ids)
    rows = [_with_profiles("words by rule", model, _by_rule(model), arguments.validation, tested)]
    if arguments.chat:
        users = np.random.default_rng(0).permutation(model.user_ids).tolist()
        asker = Asker(open_local(arguments.chat), store)
        started = time.perf_counter()
        made = list(make_profiles(model, asker, users[: arguments.profiles], store=store))
        if made:
            rows.append(_with_profiles("profiles", model, made, arguments.validation, tested))
            rows[-1] |= {"seconds": round(time.perf_counter() - started), "dropped": sum(one.dropped for one in made)}
        if arguments.lists:
            rows.append(_reranked(model, store, asker, users[: arguments.lists], tested, arguments.depth))
        print(json.dumps(asker.report.as_dict()))
    print(json.dumps(describe_machine(["torch", "numpy", "transformers", "llama-cpp-python"])))
    for row in rows:
        print(json.dumps(row))


def _by_rule(model: mmrec.Recommender) -> list[Profile]:
    """Of each user the three commonest tags of their history."""
    interactions = model.interactions
    assert interactions is not None
    counts: dict[str, Counter[str]] = {}
    for user, item in zip(interactions.user_rows, interactions.item_rows, strict=True):
        tags = model.item(interactions.item_ids[item])["tags"] or []
        counts.setdefault(interactions.user_ids[user], Counter()).update(tags)
    return [
        Profile(user_id=user, likes=tuple(Trait(words=tag) for tag, _ in tags.most_common(TAGS)))
        for user, tags in counts.items()
    ]


def _with_profiles(
    name: str, model: mmrec.Recommender, profiles: Sequence[Profile], validation: Path, tested: Any
) -> dict[str, Any]:
    chosen = choose_weight(model, profiles, validation)
    best = max(chosen.scores, key=chosen.scores.__getitem__)
    users = [profile.user_id for profile in profiles]
    of = Profiles(of={one.user_id: one for one in profiles}, chosen=type(chosen)(weight=float(best)))
    with_words = [of.state(model, user) for user in users]
    plain = [model.user_state(user, kept=False) for user in users]
    outcome = _compared(model, model.recommend(with_words, k=K)[0], model.recommend(plain, k=K)[0], users, tested)
    return {"what": name, "weight": chosen.weight, "validation": chosen.scores, "p on validation": chosen.p_value} | {
        f"best weight on test ({best})": outcome
    }


def _reranked(
    model: mmrec.Recommender, store: mmrec.FeatureStore, asker: Asker, users: list[str], tested: Any, depth: int
) -> dict[str, Any]:
    ids_UC, _ = model.recommend(users, k=depth)
    lists = [Candidates(item_ids=ids.tolist(), user_id=user) for user, ids in zip(users, ids_UC, strict=True)]
    started = time.perf_counter()
    found = list(Reranker(model, asker, store=store).rerank(lists))
    seconds = time.perf_counter() - started
    after = np.array([one.item_ids[:K] for one in found], dtype=object)
    outcome = _compared(model, after, ids_UC[:, :K], users, tested)
    answers = sum(one.num_answers for one in found)
    return {"what": f"ranked again, best {depth}", "answers": answers, "seconds": round(seconds), "test": outcome}


def _compared(
    model: mmrec.Recommender, first: NDArray[Any], second: NDArray[Any], users: Sequence[str], tested: Any
) -> dict[str, Any]:
    rows = {item_id: row for row, item_id in enumerate(model.item_ids)}
    wanted = tested.select(tested.weights > 0).matrix()
    judged = [place for place, user in enumerate(users) if user in tested.user_index]
    relevant_UI = sp.csr_array(wanted[[tested.user_index[users[place]] for place in judged]])
    k = first.shape[1]
    by_list = []
    for ids in (first, second):
        ranked_UK = np.array([[rows.get(item_id, -1) for item_id in ids[place]] for place in judged], np.int64)
        by_list.append(rank_metrics(ranked_UK, relevant_UI, [k]))
    said: dict[str, Any] = {"users": len(judged)}
    for metric in (f"recall@{k}", f"ndcg@{k}"):
        with_it, without = (found[metric] for found in by_list)
        found = compare(with_it, without)
        said[metric] = f"{without.mean():.4f} -> {with_it.mean():.4f}, p {found.p_value:.3f}"
    return said


if __name__ == "__main__":
    main()
