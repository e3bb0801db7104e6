"""Answers to clients: a voter's own word that a block is final, or what enough voters have agreed it results in.

By default a voter answers the clients that wait for its word as soon as it has executed their block. Where results are
agreed upon (RESULTS_NEEDED), it then tells all voters, signed, what came out, and answers once so many of them, itself
among them, have told it the same (the checkpoints of FISCO BCOS). What was lost is asked for by the voter whose client
asks again: it tells its result once more, and whoever had heard it answers with its own.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.chance import join
from sim.kernel.post import new_envelope
from sim.kernel.run_state import column, compiled, length
from sim.kernel.sending import send_group, send_one
from sim.ledger import rows as ledger
from sim.ledger.payload import answerer
from sim.ledger.transactions import submit_again

_TELLS, _ASKS = 0, 1  # VOTER of a RESULT's envelope


@compiled
def _reply(run_state, node, block, again):
    """The node tells the gateways whose clients wait for its word that the block is final; `again`: once more."""
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    if (
        rows[b + ledger.PAYLOAD_AT] < 0
        or rows[b + ledger.UNACKED] == 0
        or column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.MUTE] > 0
    ):
        return
    gateways = run_state[ledger.GATEWAYS]
    first = run_state[ledger.GATEWAY_FIRST]
    counts = column(run_state, ledger.REPLY_COUNT)
    for g in range(gateways):
        counts[g] = 0
    txs = column(run_state, ledger.TX)
    payload = column(run_state, ledger.PAYLOAD)
    at = rows[b + ledger.PAYLOAD_AT] * run_state[ledger.PAYLOAD_SIZE]
    own = run_state[ledger.ACKS_NEEDED] == 0
    for i in range(rows[b + ledger.TXS]):
        tx = payload[at + i]
        if tx >= 0 and (not own or answerer(run_state, tx) == node):
            counts[txs[tx * ledger.TX_WIDTH + ledger.TX_GATEWAY] - first] += 1
    kind = run_state[ledger.REPLY_KIND]
    for g in range(gateways):
        if counts[g] > 0:
            key = join(
                join(join(join(0, run_state[kernel.SEED]), 1), np.int64(node) - 2_000_000), rows[b + ledger.NUMBER]
            )
            if again:
                key = join(key, run_state[kernel.NOW])
            size = counts[g] * run_state[ledger.RECEIPT_BYTES]
            envelope = new_envelope(
                run_state, node, kind, post.REPLY, size, 0, 0, 0, key, rows[b + ledger.NUMBER], block
            )
            send_one(run_state, envelope, node, first + g, run_state[ledger.REPLY_SIGN_NS])


@compiled
def resubmit(run_state, before_ns):
    """Clients that have had no answer since before a time ask again (`submit_again`), of what is decided too."""
    rows, blocks = column(run_state, ledger.TX), column(run_state, ledger.BLOCK)
    last_node, last_block = np.int64(-1), np.int64(-1)
    for tx in range(length(run_state, ledger.TX) // ledger.TX_WIDTH):
        node = submit_again(run_state, tx, before_ns)
        rows, blocks = column(run_state, ledger.TX), column(run_state, ledger.BLOCK)
        block = rows[tx * ledger.TX_WIDTH + ledger.TX_BLOCK]
        if (
            node < 0
            or block < 0
            or blocks[block * ledger.BLOCK_WIDTH + ledger.HEIGHT] != rows[tx * ledger.TX_WIDTH + ledger.TX_DECIDED]
        ):
            continue
        if node != last_node or block != last_block:
            if run_state[ledger.ACKS_NEEDED] > 0:  # asked all of them: enough have answered when this one does
                gateway = rows[tx * ledger.TX_WIDTH + ledger.TX_GATEWAY] - run_state[ledger.GATEWAY_FIRST]
                column(run_state, ledger.BLOCK_REPLIES)[block * run_state[ledger.GATEWAYS] + gateway] = (
                    run_state[ledger.ACKS_NEEDED] - 1
                )
            answer_again(run_state, node, block)
            last_node, last_block = node, block


@compiled
def answer(run_state, node, block):
    """A node has decided and executed a block."""
    peer, height = (
        column(run_state, ledger.PEER),
        column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.HEIGHT],
    )
    peer[node * ledger.PEER_WIDTH + ledger.EXECUTED_HEIGHT] = max(
        peer[node * ledger.PEER_WIDTH + ledger.EXECUTED_HEIGHT], height
    )
    if run_state[ledger.RESULTS_NEEDED] == 0:
        _reply(run_state, node, block, False)
    elif column(run_state, kernel.IDENTITY)[node] >= 0:
        _tell_result(run_state, node, block, _TELLS)
        if _hears(run_state, node, block, node) and _told(run_state, node, block) >= run_state[ledger.RESULTS_NEEDED]:
            _reply(run_state, node, block, False)


@compiled
def answer_if_same(run_state, node, block_and_number):
    """A node has executed a block: answer, unless the row serves another block by now."""
    block = block_and_number >> 32
    if (
        column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.NUMBER] & 0xFFFFFFFF
        == block_and_number & 0xFFFFFFFF
    ):
        answer(run_state, node, block)


@compiled
def answer_again(run_state, node, block):
    """A client that has had no answer asked a node again, which has decided its block."""
    if run_state[ledger.RESULTS_NEEDED] == 0 or _told(run_state, node, block) >= run_state[ledger.RESULTS_NEEDED]:
        _reply(run_state, node, block, True)
    elif _has_told(run_state, node, block, node):
        _tell_result(run_state, node, block, _ASKS)


# --- results -----------------------------------------------------------------------------------------------
#
# BLOCK_RESULTS has a bit set for each block and seat: the voters that have told it their result, itself among them.


@compiled
def forget_results(run_state, block):
    """A row begins to serve another block: nobody has told a result of it."""
    if run_state[ledger.RESULTS_NEEDED] == 0:
        return
    told = column(run_state, ledger.BLOCK_RESULTS)
    size = run_state[kernel.SEATS] * run_state[kernel.BITS_WORDS]
    for i in range(size):
        told[block * size + i] = 0


@compiled
def _bits_at(run_state, node, block):
    return (block * run_state[kernel.SEATS] + node) * run_state[kernel.BITS_WORDS]


@compiled
def _has_told(run_state, node, block, sender):
    """Whether a node knows the result of the voter at a seat."""
    voter = column(run_state, kernel.IDENTITY)[sender]
    word = column(run_state, ledger.BLOCK_RESULTS)[_bits_at(run_state, node, block) + (voter >> 6)]
    return (word >> (voter & 63)) & 1 == 1


@compiled
def _hears(run_state, node, block, sender):
    """A node takes in the result of the voter at a seat; whether that is news."""
    if _has_told(run_state, node, block, sender):
        return False
    voter = column(run_state, kernel.IDENTITY)[sender]
    column(run_state, ledger.BLOCK_RESULTS)[_bits_at(run_state, node, block) + (voter >> 6)] |= np.int64(1) << (
        voter & 63
    )
    return True


@compiled
def _told(run_state, node, block):
    """How many voters have told a node their result; 0 until it has one of its own."""
    if not _has_told(run_state, node, block, node):
        return np.int64(0)
    told = column(run_state, ledger.BLOCK_RESULTS)
    at = _bits_at(run_state, node, block)
    count = np.int64(0)
    for i in range(run_state[kernel.BITS_WORDS]):
        word = told[at + i]
        while word:
            word &= word - 1
            count += 1
    return count


@compiled
def _result(run_state, node, block, why):
    """An envelope with a node's result."""
    number = column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.NUMBER]
    key = join(join(join(join(0, run_state[kernel.SEED]), 2), np.int64(node) - 2_000_000), number)
    if why == _ASKS:
        key = join(key, run_state[kernel.NOW])
    kind, size = run_state[ledger.RESULT_KIND], run_state[ledger.RESULT_BYTES]
    verify_ns, handle_ns = run_state[ledger.RESULT_VERIFY_NS], run_state[ledger.RESULT_HANDLE_NS]
    return new_envelope(run_state, node, kind, post.RESULT, size, verify_ns, handle_ns, why, key, number, block)


@compiled
def _tell_result(run_state, node, block, why):
    """A node tells all voters what a block resulted in, if nothing keeps it from that."""
    if column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.MUTE] == 0:
        send_group(run_state, _result(run_state, node, block, why), node, 0, run_state[ledger.RESULT_SIGN_NS])


@compiled
def result_arrives(run_state, envelope, node):
    """A voter's result comes to a node, which may have been waiting for it."""
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    block, number, sender, why = row[e + post.ARG], row[e + post.ACTION], row[e + post.SRC], row[e + post.VOTER]
    identity = column(run_state, kernel.IDENTITY)
    if (
        column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.NUMBER] != number
        or identity[node] < 0
        or identity[sender] < 0
    ):
        return  # the block has been served and freed; or it is an observer, who answers nobody
    if _hears(run_state, node, block, sender):
        if _told(run_state, node, block) == run_state[ledger.RESULTS_NEEDED]:  # those that come later change nothing
            _reply(run_state, node, block, False)
    elif why == _ASKS and _has_told(run_state, node, block, node):
        send_one(run_state, _result(run_state, node, block, _TELLS), node, sender, run_state[ledger.RESULT_SIGN_NS])
