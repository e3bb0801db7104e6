"""Trace events as columns, and their stream into Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.kernel import post
from sim.ledger import rows as ledger
from sim.trace.arrow import arrow_table

if TYPE_CHECKING:
    import pyarrow.parquet as pq

EVENTS = {
    ledger.EVENT_PROPOSED: "proposed",
    ledger.EVENT_DECIDED: "decided",
    ledger.EVENT_VIEW: "view",
    ledger.EVENT_CRASHED: "crashed",
    ledger.EVENT_RESTARTED: "restarted",
    ledger.EVENT_FAULT: "fault",
    ledger.EVENT_HEALED: "healed",
    ledger.EVENT_NOTE: "note",
    ledger.EVENT_HEAD: "head",
    ledger.EVENT_REVERTED: "reverted",
    ledger.EVENT_MEMBERSHIP: "membership",
    ledger.EVENT_READ: "read",
    ledger.EVENT_TOLD: "told",
}
# `bytes` of a decided row: 0, or for a block's first decision the deciding messages sent until then.
# What columns a..e of a row mean, by event: proposed and decided carry the block; view its number; fault and
# healed the number of the scripted fault. Where branches compete: head is the block in which a node's chain ends
# now, `view` the number of blocks it leaves for it (0: it only grew); reverted is a block that the node had decided
# and gives up, `view` the block that takes its place there. Membership carries the number of the operator's request.
# Read: a read was answered, `block` holds how long it took, ns, `height` the state it saw. Told: clients at endpoint
# `node` learned, before all others, that their transactions in a block are final, `txs` of them.
COLUMNS = ("time_ns", "event", "node", "block", "height", "view", "txs", "bytes")
MESSAGE_COLUMNS = (
    "sent_ns", "source", "destination", "kind", "statement", "arrived_ns", "received_ns", "verified_ns", "done_ns",
    "size_bytes", "fate", "key",
)  # fmt: skip
FATES = {
    post.FATE_DELIVERED: "delivered",
    post.FATE_LOST_SENDING: "lost on sending",
    post.FATE_LOST_ARRIVING: "lost on arrival",
    post.FATE_RECEIVER_DOWN: "receiver down",
    post.FATE_RULED_OUT: "dropped by a rule",
}


class ColumnFile:
    """Rows of integers, streamed to a Parquet file; nothing is kept in memory. `metadata` says whose they are."""

    def __init__(self, path: Path, columns: tuple[str, ...], metadata: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.columns = columns
        self.metadata = metadata
        self._writer: pq.ParquetWriter | None = None

    def __call__(self, rows: np.ndarray) -> None:
        """Append rows, shape (rows, columns)."""
        import pyarrow.parquet as pq

        table = arrow_table({name: rows[:, i] for i, name in enumerate(self.columns)})
        table = table.replace_schema_metadata(self.metadata)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd", write_statistics=False)
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file; without any row there is an empty table."""
        if self._writer is None:
            self(np.zeros((0, len(self.columns)), dtype=np.int64))
        assert self._writer is not None
        self._writer.close()
