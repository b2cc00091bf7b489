"""What asking a language model may cost, and what it would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmrec.errors import ChatError
from mmrec.understanding.chat import Question, Usage

CHARACTERS_PER_TOKEN = 3.0
ANSWER_TOKENS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a language model may cost: tokens in all, and money by the price of a million tokens.

    >>> from mmrec.understanding import Budget, Usage
    >>> budget = Budget(money=0.01, price_read=0.5, price_written=1.5)
    >>> budget.cost(Usage(read=2000, written=1000)), budget.is_spent(Usage(read=2000, written=1000))
    (0.0025, False)
    """

    tokens: int | None = None
    money: float | None = None
    price_read: float = 0.0
    price_written: float = 0.0

    def __post_init__(self) -> None:
        if self.money is not None and not (self.price_read or self.price_written):
            raise ChatError(f"a budget of {self.money:g} in money needs the price of a million tokens")

    def cost(self, usage: Usage) -> float:
        return (usage.read * self.price_read + usage.written * self.price_written) / 1e6

    def is_spent(self, usage: Usage) -> bool:
        over_tokens = self.tokens is not None and usage.read + usage.written >= self.tokens
        return over_tokens or (self.money is not None and self.cost(usage) >= self.money)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking a language model would take, roughly: a token is taken for three characters."""

    questions: int
    tokens_read: int
    tokens_written: int
    cost: float


def estimate_of(questions: Iterable[Question], prices: Budget) -> Estimate:
    """What these questions would take."""
    count, characters = 0, 0
    for question in questions:
        count += 1
        characters += sum(len(message["content"]) for message in question.messages())
    usage = Usage(read=int(characters / CHARACTERS_PER_TOKEN), written=count * ANSWER_TOKENS)
    return Estimate(count, usage.read, usage.written, prices.cost(usage))
