"""What determines a fit, where it runs, and how it went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from fusion.attention import FUSIONS

Objective = Literal["full_softmax", "in_batch_softmax", "binary", "bpr"]
Targets = Literal["next_item", "last_item", "all"]
Schedule = Literal["constant", "cosine"]
Optimizer = Literal["adamw", "sgd"]


class TrainingError(ValueError):
    """A configuration, interactions or a loss that training cannot go on with; the message says what and why."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """What determines a fit, with defaults chosen on the validation splits of short-video data.

    Fusion: `fusion` (a key of `FUSIONS`), `dim`, `num_heads`, and the shares dropped in training: `input_dropout` of
    features, `attention_dropout`, `modality_dropout` of modalities (for ranking alone).
    Item and user vectors: `use_ids`, `id_dropout`, `smoothing` over `neighbours` content neighbours, `history_power`.
    Objective: `objective`; `num_negatives` sampled per example for "binary" and "bpr"; `label_smoothing` for
    "full_softmax"; `alignment_weight` and its `temperature`; `adversarial_weight` and its `adversarial_epsilon`.
    Examples: `targets` are "next_item" (each interaction but a user's first, predicted from those before it),
    "last_item" (a user's last alone) or "all" (each, predicted from all the others, whatever came first). Users with more than
    `max_history` interactions are left out of training: they say little about any one item and would drown the others;
    their vectors are made like everyone's. A share `shorten_history` of histories is cut to one random item, for new
    users have short ones.
    Optimisation: `optimizer`, `learning_rate`, `weight_decay`, `schedule` with `warmup_steps`, `gradient_clip` (an L2
    norm), `ema_decay` of the averaged weights that are validated and kept (0: none), `batch_size`, `max_epochs`,
    `patience` epochs without a better validation score, `seed`.
    """

    fusion: str = "attention"
    dim: int = 64
    num_heads: int = 4
    input_dropout: float = 0.5
    attention_dropout: float = 0.0
    modality_dropout: float = 0.2
    use_ids: bool = True
    id_dropout: float = 0.1
    smoothing: float = 0.5
    neighbours: int = 10
    history_power: float = 0.5
    objective: Objective = "full_softmax"
    num_negatives: int = 64
    label_smoothing: float = 0.0
    alignment_weight: float = 0.0
    temperature: float = 0.07
    adversarial_weight: float = 0.0
    adversarial_epsilon: float = 0.5
    targets: Targets = "next_item"
    max_history: int = 100
    shorten_history: float = 0.2
    optimizer: Optimizer = "adamw"
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    gradient_clip: float = 5.0
    ema_decay: float = 0.97
    batch_size: int = 1024
    max_epochs: int = 25
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise TrainingError(f"fusion {self.fusion!r} is not one of {sorted(FUSIONS)}")
        for name, allowed in (
            ("objective", Objective),
            ("targets", Targets),
            ("schedule", Schedule),
            ("optimizer", Optimizer),
        ):
            if getattr(self, name) not in get_args(allowed):
                raise TrainingError(f"{name} {getattr(self, name)!r} is not one of {list(get_args(allowed))}")
        for name in (
            "input_dropout",
            "attention_dropout",
            "modality_dropout",
            "id_dropout",
            "ema_decay",
            "label_smoothing",
        ):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        for name in ("smoothing", "shorten_history", "history_power"):
            self._require(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in (
            "dim",
            "num_heads",
            "neighbours",
            "num_negatives",
            "batch_size",
            "max_epochs",
            "patience",
            "max_history",
        ):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "temperature"):
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in ("weight_decay", "alignment_weight", "adversarial_weight", "adversarial_epsilon", "gradient_clip",
                     "warmup_steps", "seed"):  # fmt: skip
            self._require(name, getattr(self, name) >= 0, "at least 0")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise TrainingError(f"{name} must be {rule}, got {getattr(self, name)}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FusionConfig:
        """A configuration from a mapping, as of a YAML file; unknown names and values of another type raise."""
        kinds = {f.name: type(f.default) for f in fields(cls)}
        if unknown := sorted(set(values) - set(kinds)):
            raise TrainingError(f"unknown settings {unknown}; known are {sorted(kinds)}")
        for name, value in values.items():
            wanted = (int, float) if kinds[name] is float else (kinds[name],)
            if not isinstance(value, wanted) or (isinstance(value, bool) and kinds[name] is not bool):
                raise TrainingError(f"{name} must be {kinds[name].__name__}, got {value!r}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """The effective settings, as `from_mapping` takes them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where and how a fit runs; nothing here is meant to change the result beyond rounding.

    `device`, `num_devices`, `strategy` and `precision` are Lightning's; `folder` keeps logs and, until the fit is done,
    a checkpoint from which the same fit of the same data goes on; without it nothing is written. `wandb_project` logs
    to Weights & Biases as well, whose package must be installed.
    """

    device: str = "cpu"
    num_devices: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    folder: Path | None = None
    wandb_project: str | None = None
    progress: bool = True


@dataclass(frozen=True)
class FitReport:
    """How a fit went. `metrics` are those of the weights that were kept; empty without validation."""

    epochs: int
    best_epoch: int
    examples: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
