"""Messages that go down trees of voters: what a run's hosts know of them (compiled: sim.engine.dissemination)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.engine import actions, cases, dissemination, entry, timers
from sim.kernel import post
from sim.protocol import Aggregate, Block, Message, NormalCase, Timer, Tree

if TYPE_CHECKING:
    from sim.host.run import Run


class Dissemination:
    """The trees of a run's normal cases, and what comes back up."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.aggregates: dict[int, Aggregate] = {}  # by number of the case
        self.answers: dict[int, Aggregate] = {}  # by message type of the answer
        self._numbers: dict[tuple[int, Tree], int] = {}
        self._of_block: dict[int, Tree] = {}  # by row of the block

    def declare(self, number: int, case: NormalCase) -> None:
        """Write what comes back up into the case's row of the engine's table."""
        run, aggregate = self.run, case.aggregate
        assert aggregate is not None
        kind = run.kinds[aggregate.answer]
        self.aggregates[number] = self.answers[kind] = aggregate
        row = run.engine.run_state[cases.CASES][number * cases.CASE_WIDTH :]
        row[dissemination.CASE_ANSWER] = kind + 1
        row[dissemination.CASE_SIGN_NS] = run.costs.sign_ns if case.upon.signed else 0
        row[dissemination.CASE_ANSWER_SIGN_NS] = run.costs.sign_ns if aggregate.answer.signed else 0
        row[dissemination.CASE_HANDLE_NS] = run.costs.handle_ns
        row[dissemination.CASE_QUORUM] = aggregate.quorum

    def number(self, case: int, tree: Tree, block: Block) -> int:
        """The engine's number of a tree, laid out when first asked for."""
        self._of_block[block.row] = tree
        name = (case, tree)
        if name not in self._numbers:
            run, aggregate = self.run, self.aggregates[case]
            rows = np.zeros((run.engine.seats, dissemination.TREE_WIDTH), dtype=np.int64)
            for voter in range(run.engine.voters):
                size, levels = tree.below(voter)
                children = tree.children(voter)
                answer_bytes, verify_ns = run.messages.size_and_verification(aggregate.answer(block, size))
                rows[voter, : dissemination.ANSWER_VERIFY_NS + 1] = (
                    tree.parent(voter),
                    -1 - run.engine.group(children) if children else 0,
                    size,
                    levels * aggregate.patience_ns,
                    answer_bytes,
                    verify_ns,
                )
            self._numbers[name] = run.engine.lay_tree(rows)
        return self._numbers[name]

    def message(self, envelope: int, block: Block) -> Message:
        """A message that the engine has sent about a block: down, or up."""
        at = envelope * post.ENVELOPE_WIDTH
        answer = self.answers.get(self.run.envelopes[at + post.KIND])
        if answer is None:
            return self.run.protocol.message_of(block)
        message: Message = answer.answer(block, self.run.envelopes[at + post.VOTER])
        return message

    def aggregated(self, seat: int, block: Block) -> dict[int, int]:
        """Votes counted at a seat for a block, by child; its handlers count on."""
        if not block.actions or block.row not in self._of_block:
            return {}
        action = block.actions[0]
        word = entry.take_over(self.run.run_state, action, seat)
        tree = self._of_block[block.row]
        how = word & 3
        if how == dissemination.AT_HANDLERS or (how == dissemination.THROUGH and tree.first != seat):
            return {}
        votes = {seat: 1}
        for child in tree.children(seat):
            if entry.has_answered(self.run.run_state, action, child):
                votes[child] = tree.below(child)[0]
        return votes

    def buffered(self, seat: int) -> list[tuple[int, Message]]:
        """Messages kept at a seat, with their senders; kept no longer."""
        run = self.run
        slots = run.held[seat * dissemination.BUFFERED_SLOTS : (seat + 1) * dissemination.BUFFERED_SLOTS]
        found = []
        for i, slot in enumerate(slots):
            if slot:
                slots[i] = 0
                message = run.messages.at(slot - 1)
                if message is not None:
                    found.append((run.envelopes[(slot - 1) * post.ENVELOPE_WIDTH + post.SRC], message))
                entry.let_message_go(run.run_state, slot - 1)
        return found

    def timer(self, argument: int) -> tuple[Timer, Block | None]:
        """The timer that the engine has set at a voter who waits for answers, and the block it is about."""
        run = self.run
        at = ((argument >> timers.TIMER_BITS) - 1) * int(run.run_state[actions.AGGREGATE_STRIDE])
        words = run.engine.run_state[actions.AGGREGATION]
        aggregate = self.aggregates[int(words[at + actions.AGGREGATE_CASE])]
        return aggregate.timer, run.block_store.at(int(words[at + actions.AGGREGATE_BLOCK]))
