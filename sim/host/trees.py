"""Messages that go down trees of voters: what a run's hosts know of them (compiled: sim.engine.trees)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.engine import actions, cases, entry, timers, trees
from sim.kernel import post
from sim.protocol import Block, Gather, Message, NormalCase, Timer, Tree

if TYPE_CHECKING:
    from sim.host.run import Run


class Trees:
    """The trees of a run's normal cases, and what comes back up."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.gathers: dict[int, Gather] = {}  # by number of the case
        self.answers: dict[int, Gather] = {}  # by message type of the answer
        self._numbers: dict[tuple[int, Tree], int] = {}
        self._of_block: dict[int, Tree] = {}  # by row of the block

    def declare(self, number: int, case: NormalCase) -> None:
        """Write what comes back up into the case's row of the engine's table."""
        run, gather = self.run, case.gather
        assert gather is not None
        kind = run.kinds[gather.answer]
        self.gathers[number] = self.answers[kind] = gather
        row = run.engine.run_state[cases.CASES][number * cases.CASE_WIDTH :]
        row[trees.CASE_ANSWER] = kind + 1
        row[trees.CASE_SIGN_NS] = run.costs.sign_ns if case.upon.signed else 0
        row[trees.CASE_ANSWER_SIGN_NS] = run.costs.sign_ns if gather.answer.signed else 0
        row[trees.CASE_HANDLE_NS] = run.costs.handle_ns
        row[trees.CASE_QUORUM] = gather.quorum

    def number(self, case: int, tree: Tree, block: Block) -> int:
        """The engine's number of a tree, laid out when first asked for."""
        self._of_block[block.row] = tree
        name = (case, tree)
        if name not in self._numbers:
            run, gather = self.run, self.gathers[case]
            rows = np.zeros((run.engine.seats, trees.TREE_WIDTH), dtype=np.int64)
            for voter in range(run.engine.voters):
                size, levels = tree.below(voter)
                children = tree.children(voter)
                answer_bytes, verify_ns = run.messages.size_and_verification(gather.answer(block, size))
                rows[voter, : trees.ANSWER_VERIFY_NS + 1] = (
                    tree.parent(voter),
                    -1 - run.engine.group(children) if children else 0,
                    size,
                    levels * gather.patience_ns,
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

    def gathered(self, seat: int, block: Block) -> dict[int, int]:
        """Votes counted at a seat for a block, by child; its handlers count on."""
        if not block.actions or block.row not in self._of_block:
            return {}
        action = block.actions[0]
        word = entry.take_over(self.run.run_state, action, seat)
        tree = self._of_block[block.row]
        how = word & 3
        if how == trees.AT_HANDLERS or (how == trees.THROUGH and tree.first != seat):
            return {}
        votes = {seat: 1}
        for child in tree.children(seat):
            if entry.has_answered(self.run.run_state, action, child):
                votes[child] = tree.below(child)[0]
        return votes

    def held(self, seat: int) -> list[tuple[int, Message]]:
        """Messages kept at a seat, with their senders; kept no longer."""
        run = self.run
        slots = run.held[seat * trees.HELD_SLOTS : (seat + 1) * trees.HELD_SLOTS]
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
        at = ((argument >> timers.TIMER_BITS) - 1) * int(run.run_state[actions.GATHER_STRIDE])
        words = run.engine.run_state[actions.GATHERING]
        gather = self.gathers[int(words[at + actions.GATHER_CASE])]
        return gather.timer, run.tree.at(int(words[at + actions.GATHER_BLOCK]))
