"""Stored traces: every message is kept, pictures of them are well formed, and errors say what to do."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent
from typer.testing import CliRunner

from sim.cli import app
from sim.kernel import run_state as kernel
from sim.report import space_time
from sim.scenario.run import Result, run
from sim.trace import read
from sim.trace.perfetto import write_perfetto
from sim.trace.read import StoredRun, TraceError, open_run
from sim.trace.sequence import messages_of, sequence_diagram
from tests.runs import play, scenario

COSTS: dict[str, Any] = {
    "network.bandwidth": "20 Mbit/s",
    "network.jitter": {"model": "uniform", "plus_minus": "1 ms"},
    "cpu": {"cores": 2, "crypto": "ed25519", "handle": "100 us"},
    "block": {"max_transactions": 20},
    "faults": [
        {"at": "300 ms", "for": "100 ms", "crash": {"nodes": [2]}},
        {"at": "500 ms", "for": "100 ms", "partition": {"groups": [[0, 1], [2, 3]]}},
    ],
}


def stored(folder: Path, **changes: Any) -> tuple[Result, StoredRun]:
    """Run a scenario, keep all messages, and open the result."""
    result = run(scenario(trace="messages", **changes), out=folder)
    assert result.path is not None
    return result, open_run(result.path)


@pytest.fixture(scope="module")
def costly(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """One second of PBFT with queues everywhere, a crash and a partition."""
    return stored(tmp_path_factory.mktemp("costly"), **COSTS)[1]


def test_the_level_of_the_trace_changes_nothing_but_what_is_kept(tmp_path: Path) -> None:
    results = {level: run(scenario(trace=level, **COSTS), out=tmp_path) for level in ("off", "blocks", "messages")}
    assert len({result.digest for result in results.values()}) == 1
    kept = {level: {file.name for file in (result.path or Path()).iterdir()} for level, result in results.items()}
    assert kept["blocks"] - kept["off"] == {"trace.parquet"}
    assert kept["messages"] - kept["blocks"] == {"messages.parquet"}


def test_a_stored_run_knows_its_names(tmp_path: Path) -> None:
    load = [{"kind": "open", "rate": "50 tx/s", "bytes": "500 B", "sites": ["2"]}]
    _, found = stored(tmp_path, workload=load)
    assert found.voters == 4
    assert found.places == ("0", "1", "2", "3", "2")
    assert found.name(4) == "clients 2"
    log = np.concatenate(list(found.messages()))
    kinds = {found.message_types[kind] for kind in np.unique(log[:, read.KIND])}
    assert kinds == {"REPLY", "PrePrepare", "PREPARE", "COMMIT"}


def test_no_message_is_missing_however_often_the_log_is_emptied() -> None:
    played = play(
        scenario(
            40,
            trace="messages",
            duration="2 s",
            faults=[{"at": "1 s", "partition": {"groups": [[0, 1, 2, 3]]}}],
            **{"network.loss": "0.1 %", "network.links": "datagram"},
        )
    )
    assert len(played.log) > 65536 + 1000  # rows of the log while it is collected
    fates = np.bincount(played.log[:, read.FATE], minlength=2)
    assert fates[0] == played.world.run.run_state[kernel.DELIVERED]
    assert fates[1:].sum() == played.world.run.run_state[kernel.DROPPED]


# --- Perfetto ----------------------------------------------------------------------------------------------


def parsed(file: Path) -> tuple[dict[int, str], list[Any]]:
    """Thread names by track, and the packets with events."""
    trace = Trace()
    trace.ParseFromString(file.read_bytes())
    threads = {
        p.track_descriptor.uuid: p.track_descriptor.thread.thread_name
        for p in trace.packet
        if p.track_descriptor.HasField("thread")
    }
    return threads, [p for p in trace.packet if p.HasField("track_event")]


def test_every_delivered_message_is_an_arrow_from_its_sender_to_the_thread_that_handles_it(
    costly: StoredRun, tmp_path: Path
) -> None:
    write_perfetto(costly, tmp_path / "t")
    threads, packets = parsed(tmp_path / "t")
    flows: dict[int, list[str]] = collections.defaultdict(list)
    for packet in packets:
        event = packet.track_event
        for flow in (*event.flow_ids, *event.terminating_flow_ids):
            flows[flow].append(threads[event.track_uuid])
        assert not (event.flow_ids and event.terminating_flow_ids)
    log = np.concatenate(list(costly.messages()))
    assert len(flows) == (log[:, read.FATE] == 0).sum()
    assert {tuple(steps) for steps in flows.values()} == {("send", "NIC receive", "consensus")}


def test_slices_on_a_track_follow_each_other_in_order_of_time(costly: StoredRun, tmp_path: Path) -> None:
    write_perfetto(costly, tmp_path / "t")
    threads, packets = parsed(tmp_path / "t")
    times = [packet.timestamp for packet in packets]
    assert times == sorted(times)
    busy: set[int] = set()
    for packet in packets:
        event = packet.track_event
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in busy
            busy.add(event.track_uuid)
        elif event.type == TrackEvent.TYPE_SLICE_END:
            busy.remove(event.track_uuid)
    assert not busy
    assert {"verify 0", "verify 1", "events", "fault 0: crash", "fault 1: partition"} <= set(threads.values())


def test_slices_last_as_long_as_the_work_they_stand_for(costly: StoredRun, tmp_path: Path) -> None:
    write_perfetto(costly, tmp_path / "t", to_ns=200_000_000)  # before anything breaks
    threads, packets = parsed(tmp_path / "t")
    begun: dict[int, int] = {}
    lasted: dict[str, set[int]] = collections.defaultdict(set)
    for packet in packets:
        event = packet.track_event
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            begun[event.track_uuid] = packet.timestamp
        elif event.type == TrackEvent.TYPE_SLICE_END:
            lasted[threads[event.track_uuid]].add(packet.timestamp - begun.pop(event.track_uuid))
    assert lasted["consensus"] == {100_000}
    sizes = {int(size) for chunk in costly.messages() for size in np.unique(chunk[:, read.SIZE])}
    assert lasted["NIC receive"] <= {size * 400 for size in sizes}  # 20 Mbit/s: 400 ns a byte


def test_a_window_holds_what_was_under_way_in_it(costly: StoredRun, tmp_path: Path) -> None:
    whole = write_perfetto(costly, tmp_path / "t")
    window = write_perfetto(costly, tmp_path / "t", from_ns=100_000_000, to_ns=200_000_000)
    assert 0 < window.messages < whole.messages
    with pytest.raises(TraceError, match=r"more than the 10 .* --from and --to"):
        write_perfetto(costly, tmp_path / "t", most=10)
    with pytest.raises(TraceError, match="nothing happens between"):
        write_perfetto(costly, tmp_path / "t", from_ns=5_000_000_000)


# --- sequence diagrams -------------------------------------------------------------------------------------


def test_a_pbft_decision_is_the_proposal_two_rounds_of_votes_and_nothing_else(tmp_path: Path) -> None:
    _, found = stored(tmp_path)
    lines = [line.strip() for line in sequence_diagram(found, 3).splitlines()]
    assert lines[0] == "sequenceDiagram"
    arrows = [line.split(": ")[1] for line in lines if ">>" in line]
    assert collections.Counter(arrows) == {
        "PrePrepare 3, 10.00 ms": 3,
        "PREPARE, 20.00 ms": 9,  # the primary's pre-prepare is its prepare
        "COMMIT, 30.00 ms": 12,
    }
    assert [line for line in lines if line.endswith("decides")] == [
        f"Note over n{i}: 30.00 ms: decides" for i in range(4)
    ]


def test_a_chained_decision_holds_the_proposals_that_make_it_final(tmp_path: Path) -> None:
    _, found = stored(tmp_path, protocol="hotstuff")
    text = sequence_diagram(found, 5)
    arrows = collections.Counter(line.split(": ")[1].split(",")[0] for line in text.splitlines() if ">>" in line)
    assert arrows == {"Proposal 5": 3, "Proposal 6": 3, "Proposal 7": 3, "Proposal 8": 3, "VOTE": 9}
    assert text.count("decides") == 4


def test_with_many_nodes_broadcasts_and_their_senders_are_drawn_as_one(tmp_path: Path) -> None:
    _, found = stored(tmp_path / "10", **{"network.nodes": 10})
    assert sequence_diagram(found, 3).count("->>all: PREPARE") == 9
    _, found = stored(tmp_path / "32", **{"network.nodes": 32})
    text = sequence_diagram(found, 3)
    assert "others->>all: 31 × PREPARE, sent 10.00 ms<br/>handled 20.00 ms" in text
    assert "Note over others: 30.00 ms: 31 decide" in text


def test_a_height_nobody_decided_is_an_error(costly: StoredRun) -> None:
    with pytest.raises(TraceError, match="height 999999: nothing was decided there; name one from 1 to"):
        sequence_diagram(costly, 999999)


# --- space-time diagrams -----------------------------------------------------------------------------------


def test_a_space_time_diagram_draws_each_message_from_where_it_was_sent_to_where_it_arrived(tmp_path: Path) -> None:
    _, found = stored(tmp_path)
    axes = space_time.diagram(found, 3).axes[0]
    assert axes.get_title(loc="left") == "All 4 nodes decide height 3 within 30.0 ms of its proposal by node 0"
    parts = [part for part in axes.collections if isinstance(part, LineCollection)]
    lines = [line for part in parts for line in part.get_segments() if len(line) and line[0][1] != line[1][1]]
    assert {float(line[1][0] - line[0][0]) for line in lines} == {10.0}  # every link takes 10 ms
    assert collections.Counter(float(line[0][0]) for line in lines) == {0.0: 3, 10.0: 9, 20.0: 12}


def test_a_space_time_diagram_shows_what_was_lost_and_what_came_too_late(tmp_path: Path) -> None:
    lossy = {"network.nodes": 7, "network.loss": "5 %", "network.links": "datagram", "duration": "10 s"}
    _, found = stored(tmp_path, **lossy)
    heights = [height for height in range(2, 9) if (messages_of(found, height)[1][:, read.FATE] != 0).any()]
    decision, log = messages_of(found, heights[0])
    words = [text.get_text() for text in space_time.diagram(found, heights[0]).legends[0].get_texts()]
    assert f"lost ({int((log[:, read.FATE] != 0).sum())})" in words
    decided = {row.node: row.time_ns for row in decision.decided}
    late = sum(1 for row in log if row[read.FATE] == 0 and row[read.DONE] > decided.get(row[read.DESTINATION], 1 << 62))
    assert (f"after its receiver decided ({late})" in words) == (late > 0)


def test_a_picture_is_the_same_bytes_and_a_file_is_whole_or_absent(costly: StoredRun, tmp_path: Path) -> None:
    for suffix in space_time.SUFFIXES:
        files = [tmp_path / f"{name}{suffix}" for name in ("a", "b")]
        for file in files:
            space_time.write(costly, 2, file)
        assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(TraceError, match=r"nothing was decided there"):
        space_time.write(costly, 999999, tmp_path / "c.svg")
    with pytest.raises(TraceError, match=r"end in \.svg, \.png, \.pdf"):
        space_time.write(costly, 2, tmp_path / "c.bmp")
    with pytest.raises(TraceError, match=r"c\.svg: its folder does not exist"):
        space_time.write(costly, 2, tmp_path / "none" / "c.svg")
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["a", "a", "a", "b", "b", "b"]


def test_a_decision_of_too_many_messages_is_not_drawn(costly: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_time, "DRAWN_MAX", 10)
    with pytest.raises(TraceError, match=r"messages belong to its decision, more than the 10 a picture shows"):
        space_time.diagram(costly, 2)


# --- the command -------------------------------------------------------------------------------------------


def test_the_command_takes_a_study_and_writes_what_is_asked_for(costly: StoredRun, tmp_path: Path) -> None:
    study = str(costly.folder.parent.parent)
    file = tmp_path / "run.pftrace"
    done = CliRunner().invoke(app, ["trace", study, "--perfetto", str(file), "--from", "0.1 s", "--to", "200 ms"])
    assert done.exit_code == 0, done.output
    assert file.stat().st_size > 1000
    done = CliRunner().invoke(app, ["trace", study, "--sequence", "2"])
    assert done.exit_code == 0
    assert done.output.startswith("sequenceDiagram\n")
    picture = tmp_path / "decision.svg"
    done = CliRunner().invoke(app, ["trace", study, "--space-time", "2", "--out", str(picture)])
    assert done.exit_code == 0, done.output
    assert picture.read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--perfetto", "x"], "--set trace=messages"),
        (["--sequence", "1"], "--set trace=messages"),
        ([], "--perfetto FILE, --sequence HEIGHT or --space-time HEIGHT --out FILE.svg"),
        (["--space-time", "1"], "name its file with --out FILE.svg"),
        (["--space-time", "1", "--sequence", "1", "--out", "x.svg"], "a picture of its own"),
        (["--space-time", "1", "--out", "x.bmp"], "end in .svg, .png, .pdf"),
        (["--sequence", "1", "--from", "3"], "--from 3"),
        (["--sequence", "1", "--from", "3 s", "--to", "2 s"], "window is empty"),
    ],
)
def test_what_cannot_be_shown_is_one_error_with_its_remedy(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = run(scenario(), out=tmp_path)
    done = CliRunner().invoke(app, ["trace", str(result.path), *arguments])
    assert done.exit_code == 2
    assert words in done.output


def test_a_folder_with_several_runs_is_not_guessed_at(tmp_path: Path) -> None:
    for seed in (1, 2):
        run(scenario(seed=seed), out=tmp_path)
    with pytest.raises(TraceError, match="2 runs to choose from"):
        open_run(tmp_path / "test")
    chosen = run(scenario(seed=3, trace="messages"), out=tmp_path)
    assert open_run(tmp_path / "test").folder == chosen.path  # the only one with messages
    with pytest.raises(TraceError, match="holds no run"):
        open_run(tmp_path)
    assert chosen.path is not None
    manifest = json.loads((chosen.path / read.MANIFEST).read_text())
    assert manifest["message_types"][:2] == ["TRANSACTION", "REPLY"]
