"""A run as a Perfetto trace, to be opened with https://ui.perfetto.dev.

Every node is a process with the threads

    events       proposals, decisions, views, crash and restart
    send         one instant per message sent, with its receivers
    NIC receive  a message occupies the receiving network card
    verify       signatures are checked, one thread per worker
    consensus    the consensus thread handles the message (`replies` at clients)

and a flow, drawn as an arrow, leads each delivered message from `send` over `NIC receive` to `consensus`. What
costs no time is an instant. Scripted faults have a process of their own.

Format: Perfetto's protobuf, written through the builder of the `perfetto` package, and not Chrome's JSON,
although that needs no package: JSON counts microseconds in floating point and the simulator nanoseconds in
integers, flows are part of their slices instead of events that a viewer must match by time, the order of
processes and threads can be laid down, and the files are a third of the size. The package works offline.

What is exact: every time in the message log, hence all ends, and all beginnings on the consensus thread.
Client transactions use the network card and the verification workers too but are not in the log: a
verification that waited for one seems to begin earlier than it did.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sim.ledger import rows as ledger
from sim.trace import read
from sim.trace.events import FATES
from sim.trace.read import MESSAGES_MAX, StoredRun, TraceError
from sim.trace.rows import Fact, Rows

_PACKETS = 4096  # written at a time
_SEQUENCE = 1  # all packets are one sequence
_FAULT_PROCESS = 0  # node i is process i + 1
_EVENTS, _SEND, _NIC, _CONSENSUS, _VERIFY = 1, 2, 3, 4, 5  # threads of a node; workers from _VERIFY on
_THREADS = 1 << 12  # numbers set aside per process
_BEGIN, _END, _INSTANT = 1, 2, 3  # TrackEvent.Type


@dataclasses.dataclass(frozen=True)
class Written:
    """What a file holds."""

    messages: int
    events: int
    packets: int


@dataclasses.dataclass(frozen=True)
class _Mark:
    """One track event: begin or end of a slice, or an instant. `flows` pass on, `ends` arrive here."""

    time_ns: int
    kind: int
    track: int
    name: str = ""
    flows: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


def write_perfetto(
    run: StoredRun, file: Path, *, from_ns: int = 0, to_ns: int = 1 << 62, most: int = MESSAGES_MAX
) -> Written:
    """Write what happened in [from_ns, to_ns); messages under way at either end are shown whole.

    Raises TraceError if the run has no message log, if there are more messages than `most`, or if nothing
    happened in the window.
    """
    packet_type, trace_type = _messages()
    messages = read.messages_between(run, from_ns, to_ns, most)
    events = read.events_between(run, from_ns, to_ns)
    if not len(messages) and not len(events):
        raise TraceError(f"{run.folder}: nothing happens between --from and --to; widen the window")
    marks = list(_marks(run, messages, events))
    marks.sort(key=lambda mark: mark.time_ns)  # stable: what ends comes before what then begins on a track
    count = 0
    with open(file, "wb") as stream:
        trace = trace_type()
        used = {mark.track for mark in marks}
        for packet in (*_tracks(run, used, packet_type), *(_packet(mark, packet_type) for mark in marks)):
            trace.packet.append(packet)
            count += 1
            if count % _PACKETS == 0:
                stream.write(trace.SerializeToString())
                trace = trace_type()
        stream.write(trace.SerializeToString())
    return Written(len(messages), len(events), count)


def _messages() -> tuple[Any, Any]:
    try:
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket
    except ImportError:
        raise TraceError(
            "--perfetto needs the package perfetto; install it with: pip install 'pilotzone[trace]'"
        ) from None
    return TracePacket, Trace


# --- tracks ------------------------------------------------------------------------------------------------


def _track(process: int, thread: int) -> int:
    return process * _THREADS + thread


def _thread_name(run: StoredRun, process: int, thread: int) -> str:
    if process == _FAULT_PROCESS:
        kinds = [_fault_kind(fault) for fault in run.scenario.get("faults", [])]
        number = thread - 1
        return f"fault {number}: {kinds[number]}" if number < len(kinds) else f"fault {number}"
    client = process > run.seats
    names = {_EVENTS: "events", _SEND: "send", _NIC: "NIC receive"}
    names[_CONSENSUS] = "replies" if client else "consensus"
    return names.get(thread) or f"verify {thread - _VERIFY}"


def _fault_kind(fault: dict[str, Any]) -> str:
    """What a scripted fault does: the one part of its entry that is filled in, besides its times."""
    return next((name for name, value in fault.items() if isinstance(value, dict)), "fault").replace("_", " ")


def _tracks(run: StoredRun, used: set[int], packet_type: Any) -> Iterator[Any]:
    """Descriptors: an order for processes and threads, then each that is used."""
    packet = packet_type()
    packet.track_descriptor.uuid = 0
    packet.track_descriptor.process_ordering = 1  # explicit
    packet.track_descriptor.thread_ordering = 1
    yield packet
    for process in sorted({track // _THREADS for track in used}):
        packet = packet_type()
        descriptor = packet.track_descriptor
        descriptor.uuid = _track(process, 0)
        if descriptor.uuid == 0:
            descriptor.uuid = _THREADS - 1
        descriptor.process.pid = process + 1
        descriptor.process.process_name = (
            "faults" if process == _FAULT_PROCESS else f"node {run.name(process - 1)}"
            if process <= run.seats else run.name(process - 1)
        )  # fmt: skip
        descriptor.sibling_order_rank = process
        yield packet
    rank = {_EVENTS: 0, _SEND: 1, _NIC: 2, _CONSENSUS: _THREADS}
    for track in sorted(used):
        process, thread = divmod(track, _THREADS)
        packet = packet_type()
        descriptor = packet.track_descriptor
        descriptor.uuid = track
        descriptor.thread.pid = process + 1
        descriptor.thread.tid = (process + 1) * _THREADS + thread
        descriptor.thread.thread_name = _thread_name(run, process, thread)
        descriptor.sibling_order_rank = rank.get(thread, thread)
        yield packet


def _packet(mark: _Mark, packet_type: Any) -> Any:
    packet = packet_type()
    packet.timestamp = mark.time_ns
    packet.trusted_packet_sequence_id = _SEQUENCE
    event = packet.track_event
    event.type = mark.kind
    event.track_uuid = mark.track
    if mark.name:
        event.name = mark.name
    if mark.flows:
        event.flow_ids.extend(mark.flows)
    if mark.ends:
        event.terminating_flow_ids.extend(mark.ends)
    return packet


# --- what happened -----------------------------------------------------------------------------------------


def _marks(run: StoredRun, messages: np.ndarray, events: Rows) -> Iterator[_Mark]:
    """All marks, per track in order of time."""
    yield from _fault_marks(run, events)
    yield from _event_marks(events)
    yield from _sent_marks(run, messages)
    yield from _lost_marks(run, messages)
    yield from _queue_marks(run, messages)


def _fault_marks(run: StoredRun, events: Rows) -> Iterator[_Mark]:
    begun = set()
    for row in events.of(ledger.EVENT_FAULT):
        begun.add(row.block)
        track = _track(_FAULT_PROCESS, 1 + row.block)
        yield _Mark(row.time_ns, _BEGIN, track, _thread_name(run, *divmod(track, _THREADS)))
    for row in events.of(ledger.EVENT_HEALED):
        track = _track(_FAULT_PROCESS, 1 + row.block)
        if row.block in begun:
            yield _Mark(row.time_ns, _END, track)
        else:
            yield _Mark(row.time_ns, _INSTANT, track, "healed")


def _event_marks(events: Rows) -> Iterator[_Mark]:
    for row in events[events.node >= 0]:
        yield _Mark(row.time_ns, _INSTANT, _track(1 + row.node, _EVENTS), _event_text(row))


def _event_text(row: Fact) -> str:
    event, block, height, view = row.event, row.block, row.height, row.view
    if event == ledger.EVENT_PROPOSED:
        return f"proposes height {height} (block {block}, view {view}, {row.txs} tx)"
    if event == ledger.EVENT_DECIDED:
        return f"decides height {height} (block {block})"
    if event == ledger.EVENT_VIEW:
        return f"enters view {block}"
    if event == ledger.EVENT_HEAD:
        return f"adopts height {height} (block {block})" + (f", leaves {view} for it" if view else "")
    if event == ledger.EVENT_REVERTED:
        return f"gives up decided height {height} (block {block})"
    return {ledger.EVENT_CRASHED: "crashes", ledger.EVENT_RESTARTED: "restarts"}.get(event, "note")


def _sent_marks(run: StoredRun, messages: np.ndarray) -> Iterator[_Mark]:
    """One instant per message with the flows of its delivered copies; copies differ in their receiver only."""
    rank = np.lexsort(
        (messages[:, read.DESTINATION], messages[:, read.KEY], messages[:, read.SOURCE], messages[:, read.SENT])
    )
    start = 0
    rows = messages[rank].tolist()
    same = (read.SENT, read.SOURCE, read.KEY)
    for i in range(1, len(rows) + 1):
        if i < len(rows) and all(rows[i][c] == rows[start][c] for c in same):
            continue
        copies, first = rows[start:i], rows[start]
        flows = tuple(int(rank[start + j]) + 1 for j, row in enumerate(copies) if row[read.FATE] == 0)
        kind = run.message_types[first[read.KIND]]
        to = f"to {run.name(first[read.DESTINATION])}" if len(copies) == 1 else f"to {len(copies)} nodes"
        lost = len(copies) - len(flows)
        text = f"{kind} {to}" + (f", {lost} lost" if lost else "")
        yield _Mark(first[read.SENT], _INSTANT, _track(1 + first[read.SOURCE], _SEND), text, flows)
        start = i


def _lost_marks(run: StoredRun, messages: np.ndarray) -> Iterator[_Mark]:
    """Copies that got as far as their receiver, and no further."""
    for row in messages[messages[:, read.FATE] != 0].tolist():
        kind, source = run.message_types[row[read.KIND]], run.name(row[read.SOURCE])
        text = f"{FATES[row[read.FATE]]}: {kind} from {source}"
        yield _Mark(row[read.ARRIVED], _INSTANT, _track(1 + row[read.DESTINATION], _NIC), text)


def _queue_marks(run: StoredRun, messages: np.ndarray) -> Iterator[_Mark]:
    """Slices of the queues that delivered messages pass at their receivers, each first in, first out."""
    ps_per_byte = int(run.scenario["network"]["bandwidth_ps_per_byte"])
    workers = int(run.scenario["cpu"]["cores"])
    crashes = _crashes(run)
    queues: dict[int, _Queues] = {}
    for i, row in enumerate(messages.tolist()):
        if row[read.FATE] != 0:
            continue
        node, size = row[read.DESTINATION], row[read.SIZE]
        arrived, received, verified, done = row[read.ARRIVED : read.DONE + 1]
        kind = run.message_types[row[read.KIND]]
        text = f"{kind} from {run.name(row[read.SOURCE])}"
        times = crashes.get(node, [])
        crash = bisect.bisect_left(times, arrived)  # the next one
        crash_ns = times[crash] if crash < len(times) else 1 << 62
        queue = queues.get(node)
        if queue is None or queue.crash != crash:  # a crash has emptied the queues
            queue = queues[node] = _Queues(crash, [0] * workers)
        start = max(arrived, queue.nic, received - size * ps_per_byte // 1000)
        queue.nic = received
        yield from _slice(_track(1 + node, _NIC), start, received, crash_ns, text, flows=(i + 1,))
        if verified > received:
            worker = queue.workers.index(min(queue.workers))
            start = max(received, queue.workers[worker])
            queue.workers[worker] = verified
            yield from _slice(_track(1 + node, _VERIFY + worker), start, verified, crash_ns, text)
        start = max(verified, queue.thread)
        queue.thread = done
        if start >= crash_ns:  # never got here: its arrow ends where it was lost
            yield _Mark(crash_ns, _INSTANT, _track(1 + node, _CONSENSUS), f"lost in the crash: {text}", (), (i + 1,))
        else:
            yield from _slice(_track(1 + node, _CONSENSUS), start, done, crash_ns, text, ends=(i + 1,))


@dataclasses.dataclass
class _Queues:
    """When the queues of a node are free, ns; `crash` counts the node's crashes before."""

    crash: int
    workers: list[int]
    nic: int = 0
    thread: int = 0


def _crashes(run: StoredRun) -> dict[int, list[int]]:
    """Times of every node's crashes."""
    found: dict[int, list[int]] = {}
    for chunk in run.events():
        for row in Rows(chunk).of(ledger.EVENT_CRASHED):
            found.setdefault(row.node, []).append(row.time_ns)
    return found


def _slice(
    track: int,
    start_ns: int,
    end_ns: int,
    crash_ns: int,
    text: str,
    flows: tuple[int, ...] = (),
    ends: tuple[int, ...] = (),
) -> Iterator[_Mark]:
    """A slice, or an instant if it takes no time; a crash ends it early."""
    start_ns, end_ns = min(start_ns, crash_ns), min(end_ns, crash_ns)
    if end_ns <= start_ns:
        yield _Mark(end_ns, _INSTANT, track, text, flows, ends)
        return
    yield _Mark(start_ns, _BEGIN, track, text, flows, ends)
    yield _Mark(end_ns, _END, track)
