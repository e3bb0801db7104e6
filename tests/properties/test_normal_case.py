"""The declared normal case: whatever shape it has, the fast path does what the handlers do, to the last event."""

from __future__ import annotations

import dataclasses

import pytest

from sim.protocol import (
    BATCH,
    DECIDED,
    NO_PROGRESS,
    Aggregate,
    Ballot,
    Block,
    Context,
    FastPath,
    Lease,
    Message,
    NormalCase,
    Quorum,
    Replica,
    Signing,
    Step,
    Timer,
    Tree,
    VoteType,
    upon,
)
from tests.runs import MS, Played, play, scenario


@dataclasses.dataclass(frozen=True, slots=True)
class Announce(Message):
    """A message about a block, with the block inside if it is the first."""

    block: Block
    first: bool = True

    def size_bytes(self, signing: Signing) -> int:
        return 48 + (self.block.bytes if self.first else 0)

    def carries(self) -> Block | None:
        return self.block if self.first else None


class Prepare(Announce):
    """First phase of Phases."""


class Commit(Announce):
    """Second phase of Phases."""


class Decide(Announce):
    """The end of Phases: decide."""


AGREE = VoteType("AGREE", 48)
LOCK = VoteType("LOCK", 48)
NEXT = VoteType("NEXT", 48)


class Toy(Replica):
    """What the toys share: leaders take turns by height, and a guard says how far a replica has come."""

    messages = (Announce, Prepare, Commit, Decide)
    votes = (AGREE, LOCK, NEXT)
    lasting_leader = False

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.early: dict[int, tuple[int, Announce]] = {}
        self.place = 8

    def absorb_fast_path(self) -> None:
        self.place = max(self.place, self.context.fast_path.guard)

    def guard(self) -> int | None:
        return None if self.early else self.place

    def quorums(self) -> dict[VoteType, Quorum]:
        return {vote: Quorum(self.quorum()) for vote in (AGREE, LOCK, NEXT)}

    def quorum(self) -> int:
        return self.context.n - (self.context.n - 1) // 3

    @property
    def view_number(self) -> int:
        return self.context.height

    def leader_of(self, height: int) -> int:
        return height % self.context.n

    def start(self) -> None:
        self.lead()

    @upon(BATCH, DECIDED)
    def lead(self) -> None:
        """Propose the next block if it is my turn."""
        context = self.context
        height = context.height
        if self.leader_of(height + 1) != context.me or not context.pacing.await_batch():
            return
        block = context.new_block(context.chain.decided(height), height + 1, empty=True)
        assert block is not None
        self.propose(block, context.votes.ballot(0, block.height, block))

    def propose(self, block: Block, ballot: Ballot) -> None:
        """Say it, if that is how these decide."""

    def came(self, block: Block, phase: int) -> None:
        """This replica is in a phase of a block's height."""
        self.place = 8 * block.height + phase


class Authority(Toy):
    """Messages without votes: a block is final where it is announced, and the next in turn seals the next."""

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(Announce, decide=True),)

    def propose(self, block: Block, ballot: Ballot) -> None:
        mine = 8 * block.height
        self.context.propose(
            Announce(block), ballot, FastPath(mine, mine + 1, mine + 8, notify=self.leader_of(block.height + 1))
        )
        self.context.decide(block)
        self.came(block, 8)

    @upon(Announce)
    def on_announce(self, sender: int, message: Announce) -> None:
        if self.context.height + 1 != message.block.height:
            if message.block.height > self.context.height:
                self.early[message.block.height] = (sender, message)
            return
        self.context.decide(message.block)
        self.came(message.block, 8)
        following = self.early.pop(self.context.height + 1, None)
        if following is not None:
            self.on_announce(*following)
        self.lead()


class Phases(Toy):
    """Linear: three messages a block, a vote to the leader upon each of the first two, to the next upon the last."""

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (
            NormalCase(Prepare, (Step(AGREE, to_all=False),)),
            NormalCase(Commit, (Step(LOCK, to_all=False),)),
            NormalCase(Decide, (Step(NEXT, to_all=False),)),
        )

    def start(self) -> None:
        if self.leader_of(1) == self.context.me:
            self.lead()

    def propose(self, block: Block, ballot: Ballot) -> None:
        self.say(Prepare(block), ballot, 0)

    def say(self, message: Announce, ballot: Ballot, phase: int) -> None:
        context, now = self.context, 8 * message.block.height + phase
        last = phase == 2
        context.propose(
            message,
            ballot,
            FastPath(
                now,
                now + 6 if last else now + 1,
                decided=message.block if last else None,
                to=self.leader_of(message.block.height + 1) if last else context.me,
            ),
        )
        self.reply(message, ballot, context.me)

    def reply(self, message: Announce, ballot: Ballot, leader: int) -> None:
        """Vote as the message asks."""
        phase = (Prepare, Commit, Decide).index(type(message))
        to = self.leader_of(message.block.height + 1) if phase == 2 else leader
        self.context.vote((AGREE, LOCK, NEXT)[phase], ballot, to=to)
        if phase == 2:
            self.context.decide(message.block)
        self.came(message.block, (1, 2, 8)[phase])

    @upon(Prepare, Commit, Decide)
    def on_message(self, sender: int, message: Announce) -> None:
        if message.block.height > self.context.height:
            self.reply(message, self.context.votes.ballot(0, message.block.height, message.block), sender)

    @upon(AGREE)
    def on_agreed(self, ballot: Ballot) -> None:
        assert ballot.block is not None
        self.say(Commit(ballot.block, False), ballot, 1)

    @upon(LOCK)
    def on_locked(self, ballot: Ballot) -> None:
        assert ballot.block is not None
        self.say(Decide(ballot.block, False), ballot, 2)

    @upon(NEXT)
    def on_next(self, ballot: Ballot) -> None:
        self.lead()


class Rounds(Toy):
    """All to all with leaders in turn, who vote as everybody does: a replica's own vote opens its gate."""

    progress = "always"

    def quorums(self) -> dict[VoteType, Quorum]:
        return {vote: Quorum(self.quorum(), gated=True) for vote in (AGREE, LOCK, NEXT)}

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(Announce, (Step(AGREE), Step(LOCK)), decide=True),)

    def propose(self, block: Block, ballot: Ballot) -> None:
        now = 8 * block.height
        self.context.propose(
            Announce(block), ballot, FastPath(now, now + 1, now + 8, notify=self.leader_of(block.height + 1))
        )
        self.accept(block, ballot)

    def accept(self, block: Block, ballot: Ballot) -> None:
        self.context.clock.made_progress()
        self.context.vote(AGREE, ballot, gate=True)
        self.came(block, 1)

    @upon(Announce)
    def on_announce(self, sender: int, message: Announce) -> None:
        height = self.context.height + 1
        if message.block.height > height:
            self.early[message.block.height] = (sender, message)
        elif message.block.height == height:
            self.accept(message.block, self.context.votes.ballot(0, height, message.block))

    @upon(AGREE)
    def on_agreed(self, ballot: Ballot) -> None:
        self.context.vote(LOCK, ballot, gate=True)

    @upon(LOCK)
    def on_locked(self, ballot: Ballot) -> None:
        assert ballot.block is not None
        self.context.decide(ballot.block)
        self.came(ballot.block, 8)
        following = self.early.pop(self.context.height + 1, None)
        if following is not None:
            self.on_announce(*following)
        self.lead()

    @upon(NO_PROGRESS)
    def on_timeout(self) -> None:
        raise AssertionError("nothing fails here")


class Committee(Toy):
    """Four agree among themselves, whoever else there is; replica 0 leads, or the fast path for it."""

    messages = (Announce,)
    decides_out_of_order = True

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(Announce, (Step(AGREE), Step(LOCK)), decide=True),)

    def quorums(self) -> dict[VoteType, Quorum]:
        return {vote: Quorum(3, gated=True) for vote in (AGREE, LOCK, NEXT)}

    @staticmethod
    def message_of(block: Block) -> Announce:
        return Announce(block)

    def start(self) -> None:
        self.last: Block | None = None
        self.inside = self.context.membership.audience((0, 1, 2, 3))
        self.lead()

    def guard(self) -> int:
        return 0

    @upon(BATCH, DECIDED)
    def lead(self) -> None:
        context = self.context
        self.last = context.fast_path.last_proposal() or self.last
        under_way = self.last is not None and self.last.height > context.height
        if context.me or under_way or not context.pacing.await_batch():
            return
        self.last = context.new_block(context.chain.decided(context.height), 1)
        assert self.last is not None
        height, lease = self.last.height, Lease((self.last.height + 9) // 10 * 10)
        ballot = context.votes.ballot(1, height, self.last)
        context.propose(Announce(self.last), ballot, FastPath(0, 0, lease=lease), audience=self.inside)
        context.vote(AGREE, ballot, self.inside, gate=True)

    @upon(Announce)
    def on_announce(self, sender: int, message: Announce) -> None:
        ballot = self.context.votes.ballot(1, message.block.height, message.block)
        self.context.vote(AGREE, ballot, self.inside, gate=True)

    @upon(AGREE)
    def on_agreed(self, ballot: Ballot) -> None:
        self.context.vote(LOCK, ballot, self.inside, gate=True)

    @upon(LOCK)
    def on_locked(self, ballot: Ballot) -> None:
        assert ballot.block is not None
        self.context.decide(ballot.block)
        self.lead()


@dataclasses.dataclass(frozen=True, slots=True)
class Count(Message):
    """So many replicas below have the block."""

    block: Block
    replicas: int

    def size_bytes(self, signing: Signing) -> int:
        return 48 + signing.certificate_bytes(self.replicas)


LATE = Timer("late")


class Climb(Toy):
    """A binary tree: announcements go down, counts come up; the root keeps three blocks under way.

    A block carries the last that all are known to have, which is final.
    """

    messages = (Announce, Count)
    votes = ()
    by_handlers = 0

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.last: Block | None = None  # announced here, or by me
        self.final: Block | None = None
        self.counts: dict[int, dict[int, int]] = {}

    def quorums(self) -> dict[VoteType, Quorum]:
        return {}

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(Announce, aggregate=Aggregate(Count, self.context.n, LATE, 300 * MS)),)

    @staticmethod
    def message_of(block: Block) -> Announce:
        return Announce(block)

    @property
    def tree(self) -> Tree:
        return Tree(self.context.n, 0, 2)

    def start(self) -> None:
        if self.context.me == 0:
            self.lead()

    @upon(BATCH)
    def lead(self) -> None:
        context = self.context
        while context.me == 0 and (0 if self.last is None else self.last.height) < context.height + 3:
            if not context.pacing.await_batch():
                return
            block = context.new_block(self.last, 1, empty=True)
            assert block is not None
            block.body = self.final
            before = 0 if self.last is None else self.last.number
            self.last = block
            context.propose(
                Announce(block),
                context.votes.ballot(1, block.height, block),
                FastPath(before, block.number, decided=self.final, requires=self.final),
                tree=self.tree,
            )
            self.counts[block.number] = {0: 1}

    def absorb_fast_path(self) -> None:
        self.last = self.context.fast_path.block() or self.last
        for sender, message in self.context.fast_path.buffered():
            self.early[message.block.height] = (sender, message)

    def guard(self) -> int | None:
        return None if self.early else 0 if self.last is None else self.last.number

    @upon(Announce)
    def on_announce(self, sender: int, message: Announce) -> None:
        type(self).by_handlers += 1
        if message.block.parent is not self.last:
            self.early[message.block.height] = (sender, message)
            return
        self.accept(message.block)
        while (following := self.early.pop(message.block.height + 1, None)) is not None:
            message = following[1]
            self.accept(message.block)

    def accept(self, block: Block) -> None:
        context, tree = self.context, self.tree
        children = tree.children(context.me)
        if children:
            context.send(children, Announce(block))
        self.last = block
        self.decide_up_to(block.body)
        self.counts[block.number] = {context.me: 1}
        if children:
            context.set_timer(LATE, 300 * MS * tree.below(context.me)[1], block)
        else:
            context.send(tree.parent(context.me), Count(block, 1))

    def decide_up_to(self, block: Block | None) -> None:
        if block is not None and block.height > self.context.height:
            self.decide_up_to(block.parent)
            self.context.decide(block)

    @upon(Count)
    def on_count(self, sender: int, message: Count) -> None:
        context, block = self.context, message.block
        if context.me:
            type(self).by_handlers += 1
        counts = (
            self.counts.setdefault(block.number, {}) | context.fast_path.aggregated(block) | {sender: message.replicas}
        )
        self.counts[block.number] = counts
        all_here, whole = sum(counts.values()), self.tree.below(context.me)[0]
        if context.me and all_here == whole:
            context.send(self.tree.parent(context.me), Count(block, whole))
        elif all_here == whole and (self.final is None or block.height > self.final.height):
            self.final = block  # its ancestors came down before it
            self.decide_up_to(block)
            self.lead()

    @upon(LATE)
    def on_late(self, block: Block) -> None:
        assert sum(self.counts.get(block.number, {0: 0}).values()) in (0, self.tree.below(self.context.me)[0])


CHANGES = {
    "calm": {},
    "jitter": {"network.jitter": {"model": "proportional", "up_to": 1.0}},
    "costs": {"cpu.crypto": "ed25519", "network.bandwidth": "1 Gbit/s"},
}
CHANGES["overtaking"] = CHANGES["jitter"] | {"network.links": "datagram"}


def both(toy: type[Toy], n: int, case: str) -> list[Played]:
    chosen = scenario(n, duration="3 s", **CHANGES[case])
    return [play(chosen, fast_path=fast_path, protocol=toy) for fast_path in (True, False)]


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("toy", [Authority, Phases, Rounds, Committee])
def test_both_paths_give_the_same_events(toy: type[Toy], case: str) -> None:
    for n in (4, 7):
        fast, slow = both(toy, n, case)
        assert fast.world.run.cases and not slow.world.run.cases
        assert (fast.rows == slow.rows).all()
        assert fast.digest == slow.digest
        assert len(fast.decided(0)) > 10


def test_the_fast_path_tells_only_whom_it_is_told_to() -> None:
    """Handlers of receivers stay asleep but for the next leader's."""
    told: list[int] = []

    class Counting(Authority):
        normal_cases = Authority.normal_cases

        @upon(DECIDED)
        def on_decided(self) -> None:
            told.append(self.context.me)
            self.lead()

        @upon(Announce)
        def on_announce(self, sender: int, message: Announce) -> None:
            raise AssertionError("every announcement fits the fast path")

    run = play(scenario(4, duration="1 s"), protocol=Counting)
    assert told == [height % 4 for height in range(2, len(told) + 2)]
    assert len(run.decided(0)) == 100  # one delay of 10 ms each, the first at the start


def test_a_normal_case_for_some_is_nothing_to_others() -> None:
    """A block costs 3 messages and two rounds of 12 votes, and three delays; the fast path leads nine times of ten."""
    led: list[int] = []

    class Counting(Committee):
        normal_cases = Committee.normal_cases

        @upon(BATCH, DECIDED)
        def lead(self) -> None:
            led.append(self.context.height)
            super().lead()

    run = play(scenario(7, duration="995 ms"), protocol=Counting)
    assert led[:7] == [0] * 7
    assert [height for height in led[7:] if height % 10 == 0] == [10, 20, 30]
    assert len(led) < 15, "the engine may ask for room now and then"
    assert run.sent() == 33 * 27 + 6  # and the 34th at 990 ms, with the leader's own votes
    assert {row.node for row in run.decided()} == {0, 1, 2, 3}


@pytest.mark.parametrize("case", CHANGES)
def test_what_goes_down_a_tree_and_comes_up_is_the_same_in_the_fast_path(case: str) -> None:
    """Nine voters, three levels: handlers do the root's work only, also where messages overtake each other."""
    calls = []
    for fast_path in (True, False):

        class Counting(Climb):
            normal_cases = Climb.normal_cases

        run = play(scenario(9, duration="3 s", **CHANGES[case]), fast_path=fast_path, protocol=Counting)
        calls.append((run.digest, len(run.decided(8)), Counting.by_handlers))
    (fast, decided, awake), (slow, _, busy) = calls
    assert fast == slow
    assert decided > 80
    assert awake == 0
    assert busy > 8 * decided


def test_phases_cost_six_delays_and_six_messages_a_voter() -> None:
    """Three messages and three votes a block, the last vote to the next leader."""
    run = play(scenario(7, duration="1 s"), protocol=Phases)
    times = run.decided(3).time_ns
    assert set(times[7:] - times[:-7]) == {7 * 60 * MS}  # each leads once: whatever its own message saves cancels
    rounds = run.sent("Decide") // 6
    for name in ("Prepare", "Commit", "AGREE", "LOCK"):
        assert run.sent(name) in (6 * rounds, 6 * rounds + 6)
