"""Worlds with known answers: generated logs in which it is known what can be predicted, and from what.

At some positions of a user's history she is shown items, and responds with probability `strength` where the world says
yes, else with `1 - strength` (in `markov` the predictability is used instead). So the best possible AUC is computed
from those probabilities (`best_auc`).

    name          says yes when                                                  who can know it
    checkerboard  the item's group has the parity of the user's                  any summary of the history
    markov        the item is the successor of her last event,                   the last event
                  and not of the one before
    period        the item is the one due, seen twice, `period` events apart,    a memory of about `period / 2` events
                  and not the other one, seen as often, half a period later      that keeps their order
    lag           the item's colour is that of the event `lag` positions ago     a memory of `lag` events that keeps
                                                                                 their order
    daytime       it is before noon, whatever the item                           the hour of the question
    noise         never: the answer is a coin flip                               nobody

A model that cannot know is at AUC .5 exactly: the two competing items change places with equal probability, and nothing
else changes with them. In `period` and `lag` both were seen equally often at every question, so a pooled (order-free)
history is at chance, and so are the recent events alone. In `markov` the last two events are drawn at random, and the
questions are about the successors of both. Answers are drawn again at every question, so that earlier ones tell nothing
(except in the checkerboard, where half of the users have each parity). There is one event per hour, starting at the
same midnight for all users, or in `daytime` at an hour that is drawn for each user, so that no history tells the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from lifelong.dtypes import BoolArray, FloatArray, IntArray

BLOCK = 256
"""Users generated at a time."""
DAYS = 100
"""daytime: users begin within this many days, so that at every moment there are users with few and with many events."""


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """Sizes and parameters of a world.

    Args:
        world: name of the world.
        users: number of users.
        events: events per user.
        items: number of items.
        strength: probability of a response where the world says yes; 0.5 makes every answer a coin flip.
        asked: items shown at each question time.
        groups: checkerboard: groups of items.
        predictability: markov: from 0, a coin flip, to 1, certain: the probability that the next event is the successor
            (else it is any item), and how much more often she responds where the world says yes.
        period: period: events between two visits of the item that is due; even.
        personal: period: items that users can return to.
        crossed: period and lag: share of questions that show the blue item, or the higher of the user's two; at 0.5 the
            history says nothing without the item, which takes far longer to learn.
        lag: lag: how many positions back the deciding event is.
        spread: lag: at most how many events apart the two bursts of colour end.
        burst: period and lag: events in a row of a returning item or a colour; the shorter, the harder to learn.
        seed: seed of all random numbers.
    """

    world: str = "lag"
    users: int = 1000
    events: int = 400
    items: int = 200
    strength: float = 0.9
    asked: int = 4
    groups: int = 8
    predictability: float = 0.8
    period: int = 60
    personal: int = 2
    crossed: float = 0.0
    lag: int = 60
    spread: int = 30
    burst: int = 5
    seed: int = 0

    @property
    def sure(self) -> float:
        """Probability of a response where the world says yes."""
        return {"noise": 0.5, "markov": (1 + self.predictability) / 2}.get(self.world, self.strength)

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings."""
        problems = [] if self.world in WORLDS else [f"world = {self.world!r} is not one of {', '.join(WORLDS)}"]
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("users", "events", "asked", "period", "lag", "spread", "burst"):
            problems += [f"{name} = {value[name]} is below 1"] * (value[name] < 1)
        for name in ("strength", "predictability", "crossed"):
            problems += [f"{name} = {value[name]} is outside 0..1"] * (not 0 <= value[name] <= 1)
        if self.groups < 2 or self.personal < 2 or self.items < 2 * max(self.groups, self.personal):
            problems.append("groups and personal must be at least 2, and items at least twice either")
        if self.world == "period" and (self.period % 2 or self.period < 4 or self.events < 2 * self.period):
            problems.append("period must be even and at least 4, and events at least twice the period")
        if self.world == "period" and self.period < 4 * self.burst:
            problems.append("period must be at least four times the burst")
        if self.world == "lag" and (self.events < self.lag + self.spread or self.spread < 2 * self.burst):
            problems.append("events must be at least lag + spread, and spread at least twice the burst")
        return problems


@dataclass(frozen=True, slots=True)
class Block:
    """Some users: their events, and the questions that they were asked.

    Args:
        item_UN: item number of every event.
        user_Q: row of `item_UN` for each question.
        position_Q: how many of the user's events are before it.
        item_Q: item shown.
        probability_Q: probability of a response.
        label_Q: 1 if she responded.
        start_U: hours from midnight to each user's first event.
    """

    item_UN: IntArray
    user_Q: IntArray
    position_Q: IntArray
    item_Q: IntArray
    probability_Q: FloatArray
    label_Q: FloatArray
    start_U: IntArray


Questions = tuple[IntArray, IntArray, IntArray, BoolArray]
"""user_Q, position_Q, item_Q, and whether the world says yes."""
Made = tuple[IntArray, Questions, IntArray | None]
"""Events, questions, and the hours of the users' first events; None: all at midnight."""
World = Callable[[WorldSettings, int, np.random.Generator], Made]


def blocks(settings: WorldSettings) -> Iterator[Block]:
    """All users, block by block; equal settings give equal numbers."""
    world = WORLDS[settings.world]
    for start in range(0, settings.users, BLOCK):
        rng = np.random.default_rng([settings.seed, 0, start])
        item_UN, (user_Q, position_Q, item_Q, yes_Q), start_U = world(settings, min(BLOCK, settings.users - start), rng)
        start_U = np.zeros(len(item_UN), np.int64) if start_U is None else start_U
        strength = settings.sure
        probability_Q = np.where(yes_Q, strength, 1 - strength)
        label_Q = (rng.random(len(user_Q)) < probability_Q).astype(np.float64)
        yield Block(item_UN, user_Q, position_Q, item_Q, probability_Q, label_Q, start_U)


def categories(settings: WorldSettings) -> list[str]:
    """Category of every item: its group, its colour, or plain."""
    number = np.arange(settings.items)
    if settings.world == "checkerboard":
        return [f"group {value}" for value in number % settings.groups]
    if settings.world == "lag":
        return [["red", "blue"][value % 2] if value < _markers(settings) else "plain" for value in number.tolist()]
    if settings.world == "period":
        return ["personal" if value < settings.personal else "plain" for value in number.tolist()]
    return ["plain"] * settings.items


def best_auc(probability: FloatArray) -> float:
    """Expected AUC of an oracle that scores every question with its true probability; 0.5 if nothing differs.

    A pair of questions (a answered yes, b no) occurs in proportion to p_a (1 - p_b), and is won where p_a > p_b.

    >>> round(best_auc(np.array([0.9, 0.1])), 2)
    0.9
    """
    level, count = np.unique(probability, return_counts=True)
    positive, negative = level * count, (1 - level) * count
    if positive.sum() * negative.sum() == 0:
        return 0.5
    below = np.concatenate([[0.0], np.cumsum(negative)[:-1]])
    won = positive * (below + negative / 2)
    return float(won.sum() / (positive.sum() * negative.sum()))


def _moments(users: int, positions: IntArray, asked: int) -> tuple[IntArray, IntArray]:
    """User and position of `asked` questions for every user at every position."""
    user_Q = np.repeat(np.arange(users), len(positions) * asked)
    return user_Q, np.tile(np.repeat(positions, asked), users)


def checkerboard(settings: WorldSettings, users: int, rng: np.random.Generator) -> Made:
    """A user's events are items of groups of her parity, and she responds to such items."""
    # Half of the users have each parity, so that no item is more popular than another.
    parity_U = rng.permutation(np.arange(users) % 2)
    own = rng.integers((settings.groups + 1) // 2, size=(users, settings.events)) * 2 + parity_U[:, None]
    own = np.where(own < settings.groups, own, parity_U[:, None])
    rows = settings.items // settings.groups
    item_UN = own + settings.groups * rng.integers(rows, size=own.shape)
    positions = np.arange(5, settings.events, 10)
    user_Q, position_Q = _moments(users, positions, settings.asked)
    item_Q = rng.integers(settings.groups * rows, size=len(user_Q))
    return item_UN, (user_Q, position_Q, item_Q, item_Q % settings.groups % 2 == parity_U[user_Q]), None


def markov(settings: WorldSettings, users: int, rng: np.random.Generator) -> Made:
    """A chain over the items; half of the questions show the successor of the last event, half of the one before.

    Those two events are drawn at random, so that nothing but their order says which is the last. Neither is the
    successor of the other, so how long ago the item shown was seen says nothing either.
    """
    items, positions = settings.items, np.arange(5, settings.events, 10)
    # The chain runs through all items, in one order for all users.
    item_P = np.random.default_rng([settings.seed, 1, 0]).permutation(items)
    place_UN = rng.integers(items, size=(users, settings.events))
    follows_UN = rng.random(place_UN.shape) < settings.predictability
    apart = rng.integers(2, items - 1, size=(users, len(positions)))
    drawn = np.isin(np.arange(settings.events), [positions - 2, positions - 1])
    for position in range(1, settings.events):
        if not drawn[position]:
            place_UN[:, position] = np.where(
                follows_UN[:, position], (place_UN[:, position - 1] + 1) % items, place_UN[:, position]
            )
    place_UN[:, positions - 2] = (place_UN[:, positions - 1] + apart) % items
    user_Q, position_Q = _moments(users, positions, settings.asked)
    yes_Q = rng.random(len(user_Q)) < 0.5
    asked_Q = (place_UN[user_Q, position_Q - np.where(yes_Q, 1, 2)] + 1) % items
    return item_P[place_UN], (user_Q, position_Q, item_P[asked_Q], yes_Q), None


def period(settings: WorldSettings, users: int, rng: np.random.Generator) -> Made:
    """Rounds of two periods: in each she returns to one item and, half a period later, to another; asked at the end.

    The first item is due again then; the other was last seen `period / 2 - burst + 1` events ago.
    """
    half, length = settings.period // 2, 2 * settings.period
    start_UR = _starts(settings, users, length, half // 2, rng)
    item_UN = rng.integers(settings.personal, settings.items, size=(users, settings.events))
    due_UR = rng.integers(settings.personal, size=start_UR.shape)
    other_UR = (due_UR + rng.integers(1, settings.personal, size=start_UR.shape)) % settings.personal
    user_U1 = np.arange(users)[:, None]
    for first in range(0, length, settings.period):
        for place in range(first, first + settings.burst):
            item_UN[user_U1, start_UR + place] = due_UR
            item_UN[user_U1, start_UR + half + place] = other_UR
    user_Q = np.repeat(np.arange(users), start_UR.shape[1] * settings.asked)
    position_Q, due_Q, other_Q = (
        np.repeat(part.ravel(), settings.asked) for part in (start_UR + length, due_UR, other_UR)
    )
    crossed_Q = rng.random(len(user_Q)) < settings.crossed
    item_Q = np.where(crossed_Q, np.maximum(due_Q, other_Q), np.minimum(due_Q, other_Q))
    return item_UN, (user_Q, position_Q, item_Q, item_Q == due_Q), None


def _starts(settings: WorldSettings, users: int, length: int, slack: int, rng: np.random.Generator) -> IntArray:
    """Where the rounds of each user start, one after another, at random distances.

    A model that learns positions by heart learns nothing from them. Each round has `slack` free events on average.
    """
    rounds = max(1, settings.events // (length + slack))
    space = settings.events - rounds * length
    return np.sort(rng.integers(space + 1, size=(users, rounds)), axis=1) + np.arange(rounds) * length


def _markers(settings: WorldSettings) -> int:
    """How many items have a colour: an even number, about a tenth."""
    return max(2, settings.items // 20 * 2)


def lag(settings: WorldSettings, users: int, rng: np.random.Generator) -> Made:
    """Rounds of plain events with a red and a blue burst; `lag` events later, the end of the later burst decides."""
    markers, spread, burst = _markers(settings), settings.spread, settings.burst
    start_UR = _starts(settings, users, spread + settings.lag, spread // 2, rng)
    rounds = start_UR.shape[1]
    item_UN = rng.integers(markers, settings.items, size=(users, settings.events))
    later_UR = rng.integers(2, size=(users, rounds))
    # The deciding burst ends at start + spread, the other is well before it: next to each other they would cancel out
    # in any memory that fades, and no model would start to learn.
    before_UR = start_UR + rng.integers((spread - 2 * burst) // 2 + 1, size=(users, rounds))
    user_UR = np.broadcast_to(np.arange(users)[:, None], (users, rounds))
    for first_UR, colour_UR in ((before_UR, 1 - later_UR), (start_UR + spread - burst + 1, later_UR)):
        for place in range(burst):
            shade_UR = rng.integers(markers // 2, size=(users, rounds))
            item_UN[user_UR, first_UR + place] = 2 * shade_UR + colour_UR
    user_Q = np.repeat(np.arange(users), rounds * settings.asked)
    position_Q = np.repeat((start_UR + spread + settings.lag).ravel(), settings.asked)
    crossed_Q = rng.random(len(user_Q)) < settings.crossed
    item_Q = 2 * rng.integers(markers // 2, size=len(user_Q)) + crossed_Q
    colour_Q = item_UN[user_Q, position_Q - settings.lag] % 2
    return item_UN, (user_Q, position_Q, item_Q, item_Q % 2 == colour_Q), None


def noise(settings: WorldSettings, users: int, rng: np.random.Generator) -> Made:
    """Events and answers are independent of everything."""
    item_UN = rng.integers(settings.items, size=(users, settings.events))
    user_Q, position_Q = _moments(users, np.arange(5, settings.events, 10), settings.asked)
    item_Q = rng.integers(settings.items, size=len(user_Q))
    return item_UN, (user_Q, position_Q, item_Q, np.ones(len(user_Q), bool)), None


def daytime(settings: WorldSettings, users: int, rng: np.random.Generator) -> Made:
    """Users respond to any item before noon, whatever their history; questions are spread evenly over the day."""
    start_U = rng.integers(24 * DAYS, size=users)
    item_UN = rng.integers(settings.items, size=(users, settings.events))
    user_Q, position_Q = _moments(users, np.arange(5, settings.events, 10), settings.asked)
    item_Q = rng.integers(settings.items, size=len(user_Q))
    # A question is half an hour after the event before it.
    hour_Q = (start_U[user_Q] + position_Q - 1) % 24
    return item_UN, (user_Q, position_Q, item_Q, hour_Q < 12), start_U


WORLDS: dict[str, World] = {
    "checkerboard": checkerboard,
    "markov": markov,
    "period": period,
    "lag": lag,
    "daytime": daytime,
    "noise": noise,
}
KNOWN_BY = {
    "checkerboard": "any summary of the history",
    "markov": "the last event",
    "period": "an ordered memory of more than period / 2 - burst events, and how long ago each item was last seen",
    "lag": "an ordered memory of at least lag events, and how long ago each colour was last seen",
    "daytime": "the hour of the question",
    "noise": "nobody",
}
