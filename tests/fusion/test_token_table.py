"""Tokens of a catalog: padded and not, in memory and in a file, all the same."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from fusion_data import ragged, random_table

from fusion.projections import FusionError
from fusion.token_table import RaggedPart, RaggedTokens, TokenTable, row_blocks

ROWS = [[0], [5], [3, 5, 4, 0, 29], list(range(30)), [7, 7, 7], []]


def in_file(tokens: RaggedTokens, folder: Path) -> RaggedTokens:
    """The same tokens, kept in files."""
    parts = {}
    for modality, part in tokens.parts.items():
        assert isinstance(part.values, np.ndarray)
        file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # type: ignore[assignment]  # noqa: SIM115
        file.write(part.values.tobytes())
        file.flush()
        parts[modality] = RaggedPart(part.width, part.starts_I, part.counts_I, part.seconds_N, file)
    return RaggedTokens(parts)


@pytest.fixture(params=["memory", "memory, backwards", "file", "file, backwards"])
def tokens(request: pytest.FixtureRequest, tmp_path: Path) -> RaggedTokens:
    made = ragged(random_table(), backwards="backwards" in request.param)
    return in_file(made, tmp_path) if "file" in request.param else made


def assert_same_items(found: TokenTable, expected: TokenTable) -> None:
    """The same tokens in the same order, whatever the padding."""
    assert len(found) == len(expected)
    for modality, mask_IT in expected.masks.items():
        ours_IT = found.masks[modality]
        assert ours_IT.sum(1).tolist() == mask_IT.sum(1).tolist()
        assert torch.equal(found.tokens[modality][ours_IT], expected.tokens[modality][mask_IT])
        assert torch.equal(found.times[modality][ours_IT], expected.times[modality][mask_IT])
        assert not found.tokens[modality][~ours_IT].any() and not found.times[modality][~ours_IT].any()


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_selected_items_are_those_of_the_padded_table(tokens: RaggedTokens, rows: list[int]) -> None:
    chosen = torch.tensor(rows, dtype=torch.long)
    assert_same_items(tokens.select(chosen), random_table().select(chosen))


def test_both_say_the_same_of_their_items(tokens: RaggedTokens) -> None:
    table = random_table()
    assert len(tokens) == len(table) == 30 and tokens.widths == table.widths == {"visual": 8, "audio": 5}
    assert torch.equal(tokens.there_I, table.there_I) and not tokens.there_I[5]
    assert tokens.num_modalities_I.tolist() == table.num_modalities_I.tolist()
    assert tokens.num_values == sum(int(m.sum()) * table.widths[name] for name, m in table.masks.items())
    assert copy.deepcopy(tokens) is tokens and copy.deepcopy(table) is table


def test_padding_is_no_longer_than_the_longest_item(tokens: RaggedTokens) -> None:
    assert tokens.select(torch.tensor([0, 3])).tokens["visual"].shape == (2, 1, 8)
    assert tokens.select(torch.tensor([5])).tokens["visual"].shape == (1, 1, 8)
    assert tokens.select(torch.tensor([0, 1])).tokens["visual"].shape == (2, 2, 8)


def test_a_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    tokens = in_file(ragged(random_table()), tmp_path)
    file = tokens.parts["visual"].values
    assert not isinstance(file, np.ndarray)
    file.truncate(4 * 8 * 10)
    assert len(tokens.select(torch.tensor([0, 1]))) == 2
    with pytest.raises(FusionError, match="cut short"):
        tokens.select(torch.tensor([0, 29]))


def test_arrays_tell_tokens_apart() -> None:
    def digest(tokens: TokenTable | RaggedTokens) -> list[bytes]:
        return [np.ascontiguousarray(array).tobytes() for array in tokens.arrays()]

    for kind in (lambda table: table, ragged):
        assert digest(kind(random_table())) == digest(kind(random_table()))
        assert digest(kind(random_table())) != digest(kind(random_table(seed=1)))


def test_a_table_of_parts_that_do_not_fit_is_refused() -> None:
    table = random_table()
    with pytest.raises(FusionError, match="same items"):
        TokenTable(table.tokens, {m: x[:5] for m, x in table.masks.items()})
    with pytest.raises(FusionError, match="same items"):
        TokenTable(table.tokens, {"visual": table.masks["visual"]})


@pytest.mark.parametrize("values_at_once", [1, 40, 10**9])
def test_blocks_are_all_rows_in_order(values_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusion.token_table.VALUES_AT_ONCE", values_at_once)
    blocks = list(row_blocks(random_table(), 30))
    assert torch.cat(blocks).tolist() == list(range(30))
    assert len(blocks) == {1: 30, 40: 30, 10**9: 1}[values_at_once]
