"""Runs that once ended wrongly: in a broken heap, a fork, a halt for ever, an internal error, or by two paths.

Each file is a valid scenario; the comment says what went wrong.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.scenario.load import load_scenario
from sim.scenario.run import run

HERE = Path(__file__).parent
CASES = {
    "pbft-domain-lost": "who caught up decided more blocks in one handler than the trace had room for",
    "pbft-one-voter-down": "the same, after 15 minutes away",
    "pbft-votes-lost-to-some": "VIEW-CHANGEs left out what had prepared above the water mark: two blocks at one height",
    "pbft-votes-lost-to-some-fixed-links": "the same cause, seen by an invariant",
    "kauri-no-shares-until-4-s": "what abandoned blocks held did not wait again, and roots had forgotten the rest",
    "kauri-all-crash-at-once": "nobody waited for what it had voted for before the crash",
    "rpbft-amnesia-in-a-group": "a replica that forgot sent a message to itself",
    "pbft-clients-at-the-primary": "backups that had voted for a batch did not wait for its execution",
    "wheat-cut-off-then-down": "a primary that was cut off never asked whether the view had changed",
    "aura-wrong-clock": "a block sealed by a clock that ran ahead counted towards finality",
    "wheat-forgotten-by-all": "crashes made all voters forget a request, and its client did not send it again",
    "qbft-forgotten-by-all": "the same",
    "raft-disk-and-signatures": "disk writes of handlers took numbers of timers, those of the fast path did not",
    "tendermint-double-voter": "rivals that were given back were looked up; then every vote was looked at every time",
    "rpbft-asked-one-behind": "a member that restarted asked one who was behind, and nobody else",
    "pbft-liar-keeps-the-request": "clients asked nobody else while only a liar held their requests",
    "kauri-old-blocks-held-back": "a message held back for long was sent with blocks that were forgotten",
    "hotstuff-2-late-prepare": "the fast path took a leader back into the view before",
    "pbft-checkpoint-out-of-order": "a primary in the fast path sent a checkpoint late",
    "wheat-checkpoint-out-of-order": "the same",
    "rpbft-unproven-certificate": "what a liar's VIEW-CHANGE said had prepared was believed: two blocks at one height",
    "tendermint-votes-lost-for-ever": "a vote that a link had lost was lost again whenever it was said again",
    "rpbft-new-view-twice": "a primary that crashed after its NEW-VIEW began that view again, with other batches",
    "pbft-asked-before-the-crash": "a replica that had asked for a view before a crash did not ask for it again",
    "hotstuff-2-block-forgotten-by-all": "voters forgot the block that they had voted for in a crash",
    "clique-branch-no-higher-than-decided": "a better branch no higher than the decided block was not fetched",
    "raft-transactions-numbered-by-growth": "rows of transactions depended on when their table grew",
    "hotstuff-liars-keep-some-a-view-ahead": "a proposal without a new certificate counted as progress",
    "raft-removed-server-passes-on": "a follower kept what a removed server passed on to it as its leader",
    "kauri-first-block-of-a-later-view": "the fast path kept a block as early that handlers take into its view",
    "kauri-a-look-takes-what-waits": "a look between events took over what the fast path kept, and left its guard open",
    "jolteon-gave-up-before-the-crash": "the fast path voted in a view that had been given up before a crash",
    "tendermint-ballot-nobody-asked-for": "the guard opened a ballot, in which a double voter saw a rival",
    "tendermint-some-wait-for-nothing": "voters that waited for no transaction let no round expire, for ever",
    "rpbft-group-waits-for-nothing": "nodes outside held what waited, and no member suspected its primary",
    "kauri-voted-above-what-waits": "who voted for an empty block did not wait for what lay below it",
    "hotstuff-silent-leader": "what a corrupted replica alone decided counted as decided",
    "wheat-patience-beyond-time": "patience with views doubled without an end, and a timer passed 64 bits",
    "wheat-votes-lost-for-good": "a vote that was lost was never said again, and no view was without a loss",
    "hotstuff-certificate-for-some": "a commit asked for a node of the next view, which a liar showed to some only",
    "rpbft-last-block-lost": "a node outside the group lacked the last block, and no later one showed the gap",
    "tendermint-left-with-a-liars-vote": "who left a round without a vote in it kept the vote from those who needed it",
    "pbft-owed-requests": "what clients were owed lengthened tables, and the host read blocks from the old ones",
    "jolteon-asks-for-what-a-liar-keeps": "a leader kept a timeout certificate that only its maker could satisfy",
    "kauri-patience-with-what-expires": "requests expired sooner than a view, and nobody lost patience",
    "qbft-patience-with-what-is-evicted": "the same where a full pool lets its oldest go",
    "kauri-client-asks-one-behind": "a client without an answer asked one that was behind, again and again",
    "tendermint-all-requests-expired": "a liar's block with requests that had expired counted as what clients wait for",
    "pbft-answers-about-a-rival": "who asked again was answered about the other block of an equivocating leader",
    "pbft-peer-follows-one-behind": "a client's peer followed a voter that was behind, and never asked another",
    "qbft-requests-expire-before-rounds": "requests expired sooner than a round, and then nothing waited",
    "kauri-results-of-those-behind": "nobody told those who lacked the last block, and a client needed their word",
    "wheat-leaders-write-lost": "the leader's own write was lost, and never said again",
    "pbft-checkpoint-freed": "a checkpoint's block was given back before its last votes had come",
    "kauri-all-orderers-forgot": "a request handed to all orderers was forgotten by all, and not handed in again",
    "rpbft-enough-hold-outside": "enough voters held a request, too few of them in the group",
    "clique-asks-one-that-is-gone": "a signer that was gone was asked again and again, and no other had its turn",
    "clique-equal-branches": "signers on branches of equal difficulty waited for one another (as EIP-3436 tells)",
}
FAILS = {  # and must be found to; the others end well
    "hotstuff-silent-leader": "liveness failure",
    "clique-equal-branches": "liveness failure",
    "clique-branch-no-higher-than-decided": "safety violation",  # and go on: what is final by depth can be given up
}


@pytest.mark.parametrize("name", CASES)
def test_it_ends_as_it_should_and_alike_on_both_paths(name: str) -> None:
    chosen = load_scenario(HERE / f"{name}.yaml")
    fast = run(chosen)
    assert fast.status == FAILS.get(name, "ok"), fast.violations[:1]
    handlers = run(chosen, fast_path=False)
    assert (handlers.digest, handlers.status) == (fast.digest, fast.status)


def test_the_table_names_every_file() -> None:
    assert set(CASES) == {file.stem for file in HERE.glob("*.yaml")}
