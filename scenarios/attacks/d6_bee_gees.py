"""D6: chained HotStuff loses commits to plain crashes.

N. Giridharan, F. Suri-Payer, M. Ding, H. Howard, I. Abraham, N. Crooks, "BeeGees: stayin' alive in chained BFT",
PODC 2023 (arXiv 2205.11652).

Leaders in turn, votes to the next leader, commits of view-consecutive certified blocks only: a crashed leader loses
the certificate of the view before its own, and breaks the chain. Counted are the blocks on which the commit rule
fires (those they drag along are older), per view, over whole turns of all leaders.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from sim.families.chained.tree import QC
from sim.plan.attacks import Attack, Look, Pair, Play, Seen
from sim.protocol import ALL, Ballot, Block, upon
from sim.protocols.hotstuff import VOTE, HotStuff
from sim.scenario.run import Result

FILE = "d6-crashes.yaml"

# n, crashed: commits per view of the 3-chain and of the 2-chain, as published (three digits).
TABLE: tuple[tuple[int, tuple[int, ...], float, float], ...] = (
    (4, (3,), 0, 0.25),
    (5, (4,), 0.2, 0.4),
    (6, (5,), 0.333, 0.5),
    (7, (6,), 0.429, 0.571),
    (7, (5, 6), 0.286, 0.429),
    (7, (3, 6), 0, 0.143),
    (10, (9,), 0.6, 0.7),
    (10, (7, 8, 9), 0.4, 0.5),
    (10, (3, 6, 9), 0, 0.1),
    (13, (9, 10, 11, 12), 0.462, 0.538),
    (13, (3, 6, 9, 12), 0, 0.077),
)


class VotesToAll(HotStuff):
    """The control: votes go to all, so that no crashed leader can lose a certificate.

    Three consecutive certificates commit, whatever the view of the block that carries the last one.
    """

    def accept(self, block: Block) -> None:
        context, view = self.context, block.view
        self.pacemaker.progressed()
        if self.may_vote(block):
            self.voted, self.voted_view = block, view
            self.save()
            context.vote(VOTE, context.votes.ballot(view, block.height, block), to=ALL)
        self.view = view + 1
        self.update(view, block.body)
        self.save()

    @upon(VOTE)
    def on_votes(self, ballot: Ballot) -> None:
        """Everybody has the certificate, and the next leader proposes upon it."""
        justify = QC(ballot.view, ballot.block, self.quorum())
        if self.leader_of(ballot.view + 1) == self.context.me:
            self.certify(justify)
        else:
            self.learn(justify, None)

    def commits(self, justify: QC) -> Block | None:
        two = justify.block
        if two is None or two.body is None or two.body.block is None or justify.view != two.body.view + 1:
            return None
        one = two.body.block
        if one.body is None or two.body.view != one.body.view + 1:
            return None
        final: Block | None = one.body.block
        return final


def commits_per_view(result: Result) -> Fraction:
    """How often the commit rule fired, per view, over whole turns of all leaders."""
    n = result.scenario.network.n
    blocks = result.tables["blocks"]
    views, first_ns = np.asarray(blocks["view"]), np.asarray(blocks["first_ns"])
    if not len(views):  # nothing was ever decided; view changes tell that time has not stood still
        return Fraction(0)
    low, high = 2 * n, (int(views.max()) // n - 2) * n
    fired: dict[int, int] = {}  # time of a commit -> view of the youngest block decided then
    for view, time_ns in zip(views.tolist(), first_ns.tolist(), strict=True):
        if time_ns >= 0:
            fired[time_ns] = max(fired.get(time_ns, 0), view)
    count = sum(low <= view < high for view in fired.values())
    return Fraction(count, high - low)


def published(value: float) -> Look:
    """The published number, to its three digits, and no safety violation."""

    def look(result: Result) -> Seen:
        rate = commits_per_view(result)
        sound = not any(v.kind == "safety" for v in result.violations) and int(result.metrics["view_changes"] or 0) > 20
        text = f"{float(rate):.4f} commits per view, published {value:g}"
        return Seen(sound and abs(float(rate) - value) < 6e-4, text)

    return look


def commits_again(result: Result) -> Seen:
    """Commits where the flawed protocol has none."""
    rate = commits_per_view(result)
    safe = not any(violation.kind == "safety" for violation in result.violations)
    return Seen(safe and rate > 0, f"{float(rate):.4f} commits per view with votes to all")


def pairs() -> Iterator[Pair]:
    """Every number of the table, and the control wherever the flawed protocol stands still."""
    for n, crashed, three, two in TABLE:
        sets = (f"network.nodes={n}", f"faults.0.crash.nodes={list(crashed)}")
        name = f"n = {n}, crashed {', '.join(map(str, crashed))}"
        control = Play(FILE, commits_again, sets, VotesToAll) if three == 0 else None
        yield Pair(f"{name}, 3-chain", Play(FILE, published(three), sets), control)
        jolteon = (*sets, "protocol={name: jolteon, view_timeout: 50 ms, view_timeout_max: 50 ms}")
        yield Pair(f"{name}, 2-chain", Play(FILE, published(two), jolteon))


ATTACK = Attack(
    "D6",
    "chained HotStuff, commits lost to crashes",
    "BeeGees, arXiv 2205.11652",
    "commits per view as published, for 3-chain (HotStuff) and 2-chain (Jolteon)",
    "with votes to all, commits where the 3-chain had none",
    tuple(pairs()),
)
