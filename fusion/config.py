"""What determines a fit, where it runs, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from fusion.attention import FUSIONS

Order = Literal["auto", "rows", "none"]


class TrainingError(ValueError):
    """A configuration, interactions or a loss that training cannot go on with; the message says what and why."""


class FitStopped(TrainingError):
    """The fit was asked to stop before its end."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """What determines a fit; the same defaults serve all data.

    Items: `fusion` (a key of `FUSIONS`), `dim`, `num_heads`, `use_ids`, `id_dropout`, `smoothing` of vectors over
    `neighbours` neighbours by content in each modality (in small catalogs fewer: a twentieth of the items), and the
    shares dropped in training: `input_dropout` of features, `attention_dropout`, `modality_dropout` of modalities.
    Users: `order` is "auto" (interactions count in the order of their timestamps, and in none where there are none),
    "rows" (they stand in order, as in a log) or "none". Where there is order, `half_lives` (in interactions) are where
    the learned rates of the averages start, and `history_dropout` is the share of the history's features dropped in
    training; where there is none, a share of `shortening` of the targets is predicted from one other interaction alone.
    Histories are learned from in pieces of `chunk` interactions; the interactions of a user with n of them count
    `n ** user_weight` together.
    Objective: softmax over the whole catalog where it has at most `full_softmax_items` items and not too many tokens;
    else over the targets of the batch and `num_uniform` and `num_popular` sampled negatives.
    Optimisation: AdamW with `weight_decay` and a `learning_rate` that rises over `warmup_steps`; `gradient_clip` (an L2
    norm); `batch_size` targets in a step; `ema_decay` of the averaged weights that are validated and kept (0: none); at
    most `max_epochs`, and `patience` epochs without a better validation score, of at most `validation_users`
    users; `temperature` of the alignment of modalities where there are no interactions; `seed`.
    """

    fusion: str = "attention"
    dim: int = 128
    num_heads: int = 4
    use_ids: bool = True
    id_dropout: float = 0.1
    smoothing: float = 0.5
    neighbours: int = 10
    input_dropout: float = 0.3
    attention_dropout: float = 0.0
    modality_dropout: float = 0.0
    order: Order = "auto"
    half_lives: tuple[float, ...] = (2.0, 10.0, 50.0)
    history_dropout: float = 0.2
    shortening: float = 0.2
    chunk: int = 100
    user_weight: float = 0.5
    full_softmax_items: int = 4096
    num_uniform: int = 1024
    num_popular: int = 0
    learning_rate: float = 5e-3
    weight_decay: float = 0.1
    warmup_steps: int = 20
    gradient_clip: float = 1.0
    batch_size: int = 1024
    max_epochs: int = 10
    ema_decay: float = 0.97
    patience: int = 3
    validation_users: int = 10_000
    temperature: float = 0.07
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise TrainingError(f"fusion {self.fusion!r} is not one of {sorted(FUSIONS)}")
        if self.order not in get_args(Order):
            raise TrainingError(f"order {self.order!r} is not one of {list(get_args(Order))}")
        if not self.half_lives or min(self.half_lives) <= 0:
            raise TrainingError(f"half_lives must be one or more positive numbers, got {list(self.half_lives)}")
        for name in (
            "input_dropout",
            "attention_dropout",
            "modality_dropout",
            "history_dropout",
            "shortening",
            "id_dropout",
            "ema_decay",
        ):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("smoothing", 0 <= self.smoothing <= 1, "between 0 and 1")
        self._require("user_weight", 0 <= self.user_weight <= 1, "between 0 and 1")
        for name in ("dim", "num_heads", "batch_size", "max_epochs", "patience", "validation_users", "neighbours"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("chunk", self.chunk >= 2, "at least 2")
        for name in ("learning_rate", "temperature"):
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in ("weight_decay", "gradient_clip", "warmup_steps", "seed", "full_softmax_items", "num_uniform",
                     "num_popular"):  # fmt: skip
            self._require(name, getattr(self, name) >= 0, "at least 0")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise TrainingError(f"{name} must be {rule}, got {getattr(self, name)}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FusionConfig:
        """A configuration from a mapping, as of a YAML file; unknown names and values of another type raise."""
        kinds = {f.name: type(f.default) for f in fields(cls)}
        if unknown := sorted(map(str, set(values) - set(kinds))):
            near = sorted({near for name in unknown for near in get_close_matches(name, kinds)})
            hint = f"did you mean {', '.join(near)}? known are" if near else "known are"
            raise TrainingError(f"unknown settings {unknown}: {hint} {', '.join(sorted(kinds))}")
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if kinds[name] is tuple:
                are_numbers = isinstance(value, list | tuple) and all(
                    isinstance(x, int | float) and not isinstance(x, bool) for x in value
                )
                if not are_numbers:
                    raise TrainingError(f"{name} must be a list of numbers, got {value!r}")
                value = tuple(float(x) for x in value)
            wanted = (int, float) if kinds[name] is float else (kinds[name],)
            if not isinstance(value, wanted) or (isinstance(value, bool) and kinds[name] is not bool):
                raise TrainingError(f"{name} must be {kinds[name].__name__}, got {value!r}")
            checked[name] = value
        return cls(**checked)

    def to_mapping(self) -> dict[str, Any]:
        """The effective settings, as `from_mapping` takes them."""
        return {**asdict(self), "half_lives": list(self.half_lives)}


@dataclass(frozen=True)
class FitProgress:
    """How far a fit is: `step` of `total_steps`, after `seconds`, with about `seconds_left` to go, or less.

    `metrics` are those of the last validation; empty before the first.
    """

    epoch: int
    step: int
    total_steps: int
    seconds: float
    seconds_left: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where and how a fit runs; nothing here is meant to change the result beyond rounding.

    `device` and `precision` are Lightning's; of `num_devices`, each has a process of its own, which learns from its
    share of every batch: of `cpu`, processes share the processor. `checkpoints` keeps, until the fit is done,
    what the same fit of the same data goes on from, saved after each epoch; `logs` keeps CSV and TensorBoard logs;
    `wandb_project` logs to Weights & Biases as well, whose package must be installed. `on_progress` is called after
    each step; `should_stop` is asked after each step, and ends the fit with `FitStopped`.
    """

    device: str = "cpu"
    num_devices: int = 1
    precision: str = "32-true"
    checkpoints: Path | None = None
    logs: Path | None = None
    wandb_project: str | None = None
    on_progress: Callable[[FitProgress], None] | None = None
    should_stop: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        if self.num_devices < 1:
            raise TrainingError(f"num_devices is {self.num_devices}: expected at least 1")


@dataclass(frozen=True)
class FitReport:
    """How a fit went. `metrics` are those of the weights that were kept; empty without validation.

    `rules` says what the data chose: whether order counts, and which softmax was used. `curves` are the mean loss
    `train_loss` and the validation metrics of each epoch, in order; empty where an earlier version fitted.
    """

    epochs: int
    best_epoch: int
    examples: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict, repr=False)
