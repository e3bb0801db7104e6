"""Nothing appears from nowhere and nothing vanishes: laws on a run's final counters."""

from __future__ import annotations

import numpy as np

from sim.check.verdict import Violation
from sim.engine.engine import Engine
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger


def transactions(engine: Engine) -> list[Violation]:
    """submitted = committed + pending + rejected + expired, each transaction committed at most once."""
    s = engine.state
    if not engine.settings.gateways:
        return []
    txs = engine.run_state[ledger.TX].reshape(-1, ledger.TX_WIDTH)
    free = engine.run_state[ledger.TX_FREE][: int(s[ledger.TX_FREE_LEN])]
    live = np.ones(len(txs), dtype=bool)
    live[free] = False
    pending = int((live & (txs[:, ledger.TX_DECIDED] == 0)).sum())
    total = int(s[ledger.COMMITTED]) + pending + int(s[ledger.REJECTED]) + int(s[ledger.EXPIRED])
    if int(s[ledger.SUBMITTED]) == total:
        return []
    text = (
        f"submitted {int(s[ledger.SUBMITTED])} is not committed {int(s[ledger.COMMITTED])} + pending {pending} + "
        f"rejected {int(s[ledger.REJECTED])} + expired {int(s[ledger.EXPIRED])}"
    )
    return [Violation("conservation_transactions", "conservation", int(s[kernel.NOW]), -1, text)]


def messages(engine: Engine) -> list[Violation]:
    """sent = delivered + dropped + in flight."""
    s = engine.state
    total = int(s[kernel.DELIVERED]) + int(s[kernel.DROPPED]) + int(s[kernel.IN_FLIGHT])
    if int(s[kernel.SENT]) == total:
        return []
    text = (
        f"sent {int(s[kernel.SENT])} is not delivered {int(s[kernel.DELIVERED])} + dropped {int(s[kernel.DROPPED])} + "
        f"in flight {int(s[kernel.IN_FLIGHT])}"
    )
    return [Violation("conservation_messages", "conservation", int(s[kernel.NOW]), -1, text)]


def bytes_sent(engine: Engine) -> list[Violation]:
    """Bytes through a network card = its busy time times its bandwidth, to the rounding of one ns per message."""
    found = []
    nodes = engine.node()
    for side, byte_column, busy, speed in (
        ("sent", post.TX_BYTES, post.TX_BUSY, post.TX_PS),
        ("received", post.RX_BYTES, post.RX_BUSY, post.RX_PS),
    ):
        for node in range(len(nodes)):
            ps = int(nodes[node, speed])
            if ps == 0:
                continue
            expected = int(nodes[node, byte_column]) * ps // 1000
            slack = expected - int(nodes[node, busy])
            if not 0 <= slack <= int(engine.state[kernel.SENT]) + 1:
                text = f"endpoint {node}: {int(nodes[node, busy])} ns busy with bytes {side} that take {expected} ns"
                found.append(Violation("conservation_bytes", "conservation", int(engine.state[kernel.NOW]), node, text))
    return found
