"""What the engine must know of a run, as plain values."""

from __future__ import annotations

import dataclasses

import numpy as np

from sim.kernel import post, sharing

NO_LIMIT = 1 << 62


@dataclasses.dataclass(frozen=True)
class ClassRules:
    """What a class of transactions has besides its size."""

    most: int = NO_LIMIT  # transactions submitted
    senders: int = 1  # at each gateway
    asks: bool = False  # each answer is followed by the next request,
    think_ns: int = 0  # so long after it,
    think_drawn: bool = False  # or an exponential wait with that mean
    deadline_ns: int = 0  # an answer later than this is late; 0: there is none
    signatures: int = 1  # that voters verify
    watched: bool = False  # what becomes of its transactions is on record
    valid_ns: int = 0  # so long after submission one may still have its effect; 0: always
    stays: bool = False  # must not leave the country
    supervises: bool = False  # orders of a department, which frozen keys obey
    accesses: tuple[tuple[int, ...], ...] = ()  # rows of ACCESS (sim.ledger.rows), ACCESS_WIDTH integers each


@dataclasses.dataclass(frozen=True)
class StateSettings:
    """The keyed state that transactions read and write (sim.ledger.state)."""

    keys: int
    skew: np.ndarray  # rows of SKEW, which accesses name, int64, shape (steps, 2)
    aborts: bool  # on a conflict; else transactions are executed one after the other as ordered
    tries: int = 0  # after a conflict
    try_again_ns: int = 0
    records: bool = False
    lanes: int = 0  # > 0: a block's cost is laid out, each transaction in one of so many lanes
    io_ns: int = 0  # with lanes: per transaction, besides execute_ns


@dataclasses.dataclass(frozen=True)
class EndorsementSettings:
    """Peers that execute requests before they are ordered (sim.ledger.peers)."""

    first: int  # seat of the first peer
    plans: (
        np.ndarray
    )  # per peer the bit sets of peers that meet the policy, the best first, int64, shape (peers, plans)
    execute_ns: int
    verify_ns: int
    sign_ns: int
    handle_ns: int
    timeout_ns: int
    answer_bytes: int
    to_all: bool  # orderers


@dataclasses.dataclass(frozen=True)
class Speeds:
    """How many times as long things take at each endpoint, times 1024, int64, shape (endpoints,)."""

    cpu_q10: np.ndarray
    crypto_q10: np.ndarray  # signing and verifying, the processor's slowness included
    disk_q10: np.ndarray


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the engine must know of a run. Arrays are indexed by endpoint: seats first, then gateways.

    A seat runs a replica. Seats 0..voters-1 are the voters, one each; more may follow, see `identity`.
    """

    voters: int
    gateways: int
    seed: int
    site_of: np.ndarray  # endpoint -> site, int
    latency_ns: np.ndarray  # one way, site x site
    tx_ps_per_byte: np.ndarray  # 0: unlimited
    rx_ps_per_byte: np.ndarray
    identity: tuple[int, ...] = ()  # seat -> the voter as whom it votes, -1: observer; default: the voters alone
    listeners: tuple[int, ...] = ()  # observers that broadcasts go to as well
    side: tuple[int, ...] = ()  # endpoint -> 0 at home, 1 abroad, -1 nowhere; empty: there is no border
    workers: int = 1  # of each node, or the most that any has
    cores_of: np.ndarray | None = None  # workers of each endpoint, if they differ
    speeds: Speeds | None = None  # of each endpoint's equipment, if they differ
    link_caps_ps: tuple[int, ...] = ()  # picoseconds per byte of links with a bandwidth of their own
    jitter_mode: int = post.NO_JITTER
    jitter_low_ns: int = 0
    jitter_span: int = 0
    jitter_table: np.ndarray | None = None
    loss_q32: int = 0
    retransmit_ns: int = 0  # 0: datagrams
    ordered: bool = True
    sharing: int = sharing.FIFO  # how copies share their sender's card
    flush_ns: int = 0  # after which a connection between seats is flushed; 0: at once
    window: int = 0  # bytes of a message under way before the first is acknowledged; 0: all
    look_ns: int = 0  # how often a seat looks what it has for a peer
    links_change: bool = False  # link rules will be used
    block_txs: int = 1000
    block_bytes: int = 0
    backlog_bytes: int = 0
    warm_up_ns: int = 0
    measure_end_ns: int = NO_LIMIT
    stop_after: int = 0
    acks_needed: int = 0  # 0: the entry node's word is enough
    broadcast_txs: bool = False
    decide_waits: bool = False
    class_bytes: tuple[int, ...] = (512,)
    class_rules: tuple[ClassRules, ...] = ()  # one per class, or none
    invalid_class: int = NO_LIMIT  # transactions of this class and later ones are verified, and rejected
    tx_verify_ns: int = 0
    tx_kind: int = 0
    reply_kind: int = 1
    receipt_bytes: int = 100
    reply_sign_ns: int = 0
    results_needed: int = 0  # voters that must have told a node what a block resulted in before it answers
    result_kind: int = 0
    result_bytes: int = 0
    result_sign_ns: int = 0
    result_verify_ns: int = 0
    result_handle_ns: int = 0
    state: StateSettings | None = None
    endorsement: EndorsementSettings | None = None
    endorse_kind: int = 0
    execute_ns: int = 0  # per transaction; with the state's lanes: in its lane
    execute_block_ns: int = 0
    execute_place: int = 0  # sim.ledger.execution.PLACES
    batch_timeout_ns: int = 0
    batch_from: int = 0  # it counts 0: from the first transaction, 1: from the last block, 2: in beats from there
    tick_ns: int = 0  # a clock that runs on lets a block go, at most one at each beat
    builds_early: bool = False  # a block holds what waited when its parent came,
    rebuild_ns: int = 0  # or when so many such times had gone by since
    pool_limit: int = NO_LIMIT
    pool_bytes: int = NO_LIMIT
    pool_per_sender: int = 0  # 0: no limit
    pool_evicts: bool = False
    pool_keeps_ns: int = NO_LIMIT
    retries: int = 0
    retry_ns: int = 0
    retry_most_ns: int = 0
    events_max: int = NO_LIMIT
    still_max: int = 200_000
    log_messages: bool = False
