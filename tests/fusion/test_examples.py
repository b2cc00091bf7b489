"""What an interaction is learned from: never from itself, and, where the order is known, never from what came later."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from fusion.config import TrainingError
from fusion.examples import Examples

# Users 0 to 3; the order in time differs from that of the columns. User 1 has one item, user 3 more than four.
TAKEN = {0: [4, 1, 3], 1: [2], 2: [5, 0], 3: [0, 1, 2, 3, 4]}


def made(targets: str, *, ordered: bool = True) -> dict[tuple[int, ...], set[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Target -> (history, other items of the user), for each example."""
    triples = [(user, item, place) for user, items in TAKEN.items() for place, item in enumerate(items)]
    users, items, places = (np.array(column) for column in zip(*triples, strict=True))
    train_UI = sp.csr_array((items + 1.0, (users, items)), shape=(4, 6))
    order_N = places[np.lexsort((items, users))] if ordered else None
    examples = Examples(train_UI, order_N, targets, 4)  # type: ignore[arg-type]
    items_BH, weights_BH, others_BH, targets_B = examples[np.arange(len(examples))]
    found: dict[tuple[int, ...], set[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for row, target in enumerate(targets_B.tolist()):
        history = sorted(items_BH[row][weights_BH[row] > 0].tolist())
        assert weights_BH[row][weights_BH[row] > 0].tolist() == (items_BH[row][weights_BH[row] > 0] + 1).tolist()
        others = sorted(items_BH[row][others_BH[row]].tolist())
        found.setdefault((target,), set()).add((tuple(history), tuple(others)))
    assert len(examples) == sum(map(len, found.values()))
    return found


def test_later_items_are_told_from_earlier_ones() -> None:
    assert made("next_item") == {
        (1,): {((4,), (3, 4))},
        (3,): {((1, 4), (1, 4))},
        (0,): {((5,), (5,))},
    }


def test_the_last_alone() -> None:
    assert made("last_item") == {(3,): {((1, 4), (1, 4))}, (0,): {((5,), (5,))}}


@pytest.mark.parametrize("targets", ["all", "next_item", "last_item"])
def test_each_from_all_others(targets: str) -> None:
    found = made(targets, ordered=False)
    assert found == {
        (4,): {((1, 3), (1, 3))},
        (1,): {((3, 4), (3, 4))},
        (3,): {((1, 4), (1, 4))},
        (5,): {((0,), (0,))},
        (0,): {((5,), (5,))},
    }
    assert made("all") == found


def test_nobody_to_learn_from() -> None:
    with pytest.raises(TrainingError, match="between 2 and 4"):
        Examples(sp.csr_array(np.eye(3)), None, "all", 4)
