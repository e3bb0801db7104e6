"""One small story per rule of the kernel: told alike by both engines, and known in numbers beforehand."""

from __future__ import annotations

from typing import Any

from sim.kernel.post import FATE_DELIVERED, FATE_LOST_ARRIVING, FATE_RECEIVER_DOWN
from tests.oracle.script import Script, Story, TallySpec, perform
from tests.oracle.world import ALL, GATE, Kind, Network, Rule

ONE = 1 << 32  # probability 1
SENT, SRC, DST, KIND, ARRIVED, RECEIVED, VERIFIED, DONE, SIZE, FATE = range(10)


def network(nodes: int, latency_ns: int = 1000, **more: Any) -> Network:
    """Equal nodes at one site, unlimited bandwidth."""
    plain: dict[str, Any] = dict(
        latency_ns=((latency_ns,),),
        site_of=(0,) * nodes,
        tx_ps=(0,) * nodes,
        rx_ps=(0,) * nodes,
        cpu_q10=(1024,) * nodes,
    )
    return Network(nodes, **plain | more)


def story(script: Script) -> Story:
    """The one story that both engines tell."""
    compiled, naive = perform(script)
    assert compiled == naive
    assert compiled.counters["sent"] == len(compiled.copies) + len(compiled.lost)
    return compiled


def column(story: Story, field: int, *, dst: int | None = None) -> list[int]:
    """One field of the copies in order of arrival."""
    return [copy[field] for copy in story.copies if dst is None or copy[DST] == dst]


def woken(story: Story, what: str) -> list[tuple[Any, ...]]:
    """Wake-ups of a sort: (time, node, ...)."""
    return [(w[0], w[1], *w[3:]) for w in story.wakes if w[2] == what]


def test_a_broadcast_is_signed_once_and_leaves_copy_by_copy() -> None:
    kinds = (Kind(0, size=100, sign_ns=50),)
    told = story(
        Script(network(4, tx_ps=(10_000,) * 4), kinds, actions=((0, ("message", 0, ALL, 0)), (0, ("message", 0, 1, 0))))
    )
    assert sorted(column(told, ARRIVED)) == [50 + 1000 * k + 1000 for k in (1, 2, 3, 4)]


def test_the_receivers_nic_is_a_queue() -> None:
    kinds = (Kind(0, size=100),)
    actions = tuple((0, ("message", src, 0, 0)) for src in (1, 2, 3))
    told = story(Script(network(4, rx_ps=(10_000, 0, 0, 0)), kinds, actions=actions))
    assert column(told, ARRIVED) == [1000] * 3
    assert column(told, RECEIVED) == [2000, 3000, 4000]


def test_workers_verify_side_by_side_and_hand_over_in_order_of_arrival() -> None:
    kinds = (Kind(0, verify_ns=900, handle_ns=10), Kind(1, verify_ns=200, handle_ns=10), Kind(2, handle_ns=10))
    actions = tuple((t, ("message", 1, 0, k)) for t, k in ((0, 0), (1, 1), (2, 1), (3, 2)))
    told = story(Script(network(2, workers=2), kinds, actions=actions))
    assert column(told, VERIFIED) == [
        1900,
        1201,
        1401,
        1003,
    ]  # the third waits for the second worker; the last needs none
    assert column(told, DONE) == [1910, 1920, 1930, 1940]
    assert [w[0] for w in woken(told, "message")] == [1910, 1920, 1930, 1940]


def test_an_ordered_link_keeps_the_order_and_a_datagram_link_does_not() -> None:
    kinds = (Kind(0),)
    actions = tuple((10 * k, ("message", 0, 1, 0)) for k in range(40))
    jitter: dict[str, Any] = dict(jitter="added", jitter_span=2000)
    orders = {}
    for ordered in (True, False):
        told = story(Script(network(2, **jitter, ordered=ordered), kinds, actions=actions))
        orders[ordered] = column(told, SENT)
    assert orders[True] == sorted(orders[True])
    assert orders[False] != sorted(orders[False])
    assert sorted(orders[False]) == orders[True]


def test_a_lost_copy_is_sent_again_with_doubled_waits_or_stays_lost() -> None:
    kinds = (Kind(0),)
    actions = tuple((100_000 * k, ("message", 0, 1, 0)) for k in range(60))
    told = story(Script(network(2, loss_q32=ONE // 2, retransmit_ns=700), kinds, actions=actions))
    waits = {copy[ARRIVED] - copy[SENT] - 1000 for copy in told.copies}
    assert waits <= {700 * (2**k - 1) for k in range(16)}
    assert {0, 700, 2100} <= waits
    assert told.counters["dropped"] == 0
    told = story(Script(network(2, loss_q32=ONE // 2), kinds, actions=actions))
    assert 15 <= told.counters["dropped"] <= 45
    assert set(column(told, ARRIVED)) <= {t + 1000 for t, _ in actions}


def test_a_link_that_loses_everything_gives_up_after_15_retransmissions() -> None:
    told = story(Script(network(2, loss_q32=ONE, retransmit_ns=1), (Kind(0),), actions=((0, ("message", 0, 1, 0)),)))
    assert told.counters == dict(sent=1, delivered=0, dropped=1, in_flight=0, bytes=100, doubled=0)


def test_a_doubled_copy_is_counted_twice_and_its_bytes_once() -> None:
    rules = (Rule(duplicate_q32=ONE),)
    actions = ((0, ("link", 0, 1, 1)), (5, ("message", 0, ALL, 0)))
    told = story(Script(network(3), (Kind(0),), rules=rules, actions=actions))
    assert told.counters == dict(sent=3, delivered=3, dropped=0, in_flight=0, bytes=200, doubled=1)
    assert [w[:2] for w in woken(told, "message")] == [(1005, 1), (1005, 1), (1005, 2)]


def test_a_doubled_vote_counts_once() -> None:
    rules = (Rule(duplicate_q32=ONE),)
    actions = ((0, ("link", 0, 1, 1)), (5, ("vote", 0, 0, 1)))
    told = story(Script(network(2), (Kind(0),), (TallySpec(0, (2,)),), rules, actions))
    assert told.counters["delivered"] == 2
    assert woken(told, "quorum") == []


def test_a_crash_voids_a_message_in_the_queue_and_a_restart_starts_with_empty_queues() -> None:
    kinds = (Kind(0, verify_ns=500, handle_ns=50),)
    actions = (
        (0, ("message", 1, 0, 0)),  # arrives at 1000, would be handled at 1550
        (1, ("message", 1, 0, 0)),
        (200, ("message", 1, 0, 0)),  # arrives while the node is down
        (400, ("message", 1, 0, 0)),  # arrives after it is up again
        (1100, ("crash", 0)),
        (1300, ("restart", 0)),
    )
    told = story(Script(network(2), kinds, actions=actions))
    assert column(told, FATE) == [FATE_DELIVERED, FATE_DELIVERED, FATE_RECEIVER_DOWN, FATE_DELIVERED]
    assert [w[0] for w in woken(told, "message")] == [1400 + 550]
    assert told.counters["delivered"] == 3


def test_a_crash_voids_timers_and_counts_but_not_the_own_vote() -> None:
    actions = (
        (0, ("timer", 0, 5000)),
        (0, ("vote", 0, 0, 1)),
        (0, ("vote", 1, 0, 1)),
        (2000, ("crash", 0)),
        (3000, ("restart", 0)),
        (3000, ("vote", 2, 0, 1)),
        (4000, ("vote", 3, 0, 1)),
    )
    told = story(Script(network(4), (Kind(0),), (TallySpec(0, (3,)),), actions=actions))
    assert woken(told, "timer") == []
    # Node 0 lost node 1's vote in the crash: its own, 2's and 3's make three.
    assert [w[0] for w in woken(told, "quorum") if w[1] == 0] == [5000]


def test_what_a_node_sent_before_its_crash_stays_on_its_way() -> None:
    kinds = (Kind(0, size=100, sign_ns=1000),)
    actions = (
        (0, ("message", 0, 1, 0)),
        (0, ("message", 0, 1, 0)),
        (100, ("crash", 0)),
        (200, ("restart", 0)),
        (300, ("message", 0, 1, 0)),
    )
    told = story(Script(network(2, tx_ps=(1000, 0)), kinds, actions=actions))
    assert column(told, ARRIVED) == [2100, 3100, 4100]  # the third queues behind the two


def test_a_cut_drops_what_is_sent_and_what_arrives_while_it_lasts() -> None:
    rules = (Rule(down=True),)
    actions = (
        (0, ("message", 0, 1, 0)),  # would arrive during the cut
        (500, ("link", 0, 1, 1)),
        (600, ("message", 0, 1, 0)),  # sent during the cut
        (700, ("message", 1, 0, 0)),  # the other direction is whole
        (1200, ("link", 0, 1, 0)),
        (1300, ("message", 0, 1, 0)),
    )
    told = story(Script(network(2), (Kind(0),), rules=rules, actions=actions))
    assert column(told, FATE, dst=1) == [FATE_LOST_ARRIVING, FATE_DELIVERED]
    assert len(told.lost) == 1
    assert [w[:2] for w in woken(told, "message")] == [(1700, 0), (2300, 1)]


def test_a_cut_that_is_over_before_a_copy_arrives_does_not_touch_it() -> None:
    actions = ((0, ("message", 0, 1, 0)), (300, ("link", 0, 1, 1)), (900, ("link", 0, 1, 0)))
    told = story(Script(network(2), (Kind(0),), rules=(Rule(down=True),), actions=actions))
    assert column(told, FATE) == [FATE_DELIVERED]


def test_one_vote_reaches_several_thresholds_here_and_in_the_parent() -> None:
    kinds = (Kind(0, handle_ns=30),)
    tallies = (TallySpec(0, (1, 2), parent=1), TallySpec(0, (2, 3)))
    told = story(Script(network(3), kinds, tallies, actions=((0, ("vote", 1, 1, 1)), (5000, ("vote", 2, 0, 1)))))
    at_0 = [w for w in woken(told, "quorum") if w[1] == 0]
    assert at_0 == [(6030, 0, 0, 0, 0), (6030, 0, 1, 0, 0)]
    gated = (TallySpec(0, (GATE + 1, GATE + 2), parent=1), TallySpec(0, (GATE + 1,)))
    actions = ((0, ("vote", 1, 0, 1)), (0, ("vote", 2, 0, 1)), (5000, ("gate", 3, 0, 0)))
    told = story(Script(network(4), kinds, gated, actions=actions))
    assert woken(told, "quorum") == [(5000, 3, 0, 0, 0), (5000, 3, 0, 1, 0), (5000, 3, 1, 0, 0)]


def test_a_gate_does_not_let_votes_count_before_they_are_processed() -> None:
    """Votes that wait for the CPU when the condition is met: the quorum is due when the last one needed is done."""
    kinds = (Kind(0, verify_ns=1000), Kind(1))
    votes = tuple((t, ("vote", src, 0, 1)) for t, src in enumerate((1, 2)))
    told = story(Script(network(4), kinds, (TallySpec(0, (GATE + 2,)),), actions=(*votes, (1500, ("gate", 3, 0, 0)))))
    assert woken(told, "quorum") == [(3000, 3, 0, 0, 0)]  # they arrive at 1000 and 1001, done at 2000 and 3000


def test_the_own_vote_makes_a_quorum_with_the_vote_before_the_last() -> None:
    kinds = (Kind(0, verify_ns=1000),)
    votes = tuple((t, ("vote", src, 0, 1)) for t, src in enumerate((1, 2, 3)))
    told = story(Script(network(4), kinds, (TallySpec(0, (3,)),), actions=(*votes, (1500, ("vote", 0, 0, 1)))))
    assert [w[0] for w in woken(told, "quorum") if w[1] == 0] == [3000]  # votes done at 2000, 3000, 4000


def test_a_threshold_that_is_due_does_not_pass_to_the_next_statement() -> None:
    """A tally given up while a threshold waits to be told: its row's next use starts afresh."""
    kinds = (Kind(0, handle_ns=1000),)
    actions = ((0, ("vote", 1, 0, 1)), (1500, ("renew", 0, 0)))
    assert woken(story(Script(network(2), kinds, (TallySpec(0, (1,)),), actions=actions)), "quorum") == [
        (0, 1, 0, 0, 0)
    ]


def test_equal_times_due_events_first_then_arrivals_each_in_order_of_entry() -> None:
    kinds = (Kind(0), Kind(1, handle_ns=500))
    actions = (
        (0, ("message", 2, 0, 0)),  # arrives at 1000, after everything that is due then
        (0, ("message", 1, 0, 0)),
        (0, ("timer", 0, 1000)),
        (0, ("timer", 1, 1000)),
        (1000, ("timer", 0, 0)),  # entered before those two: actions are set at the start
        (1000, ("message", 3, 0, 0)),
    )
    told = story(Script(network(4), kinds, actions=actions))
    at_1000 = [(w[1], w[2]) for w in told.wakes if w[0] == 1000]
    assert at_1000 == [
        ("call", 4),
        ("call", 5),
        (0, "timer"),
        (1, "timer"),
        (0, "timer"),
        (0, "message"),
        (0, "message"),
    ]
    assert [w[3] for w in woken(told, "message")] == [2, 1, 3]  # senders, in order of sending


def test_zero_latency_and_zero_cost_take_no_time() -> None:
    reactions = ((("message", 0), (("vote", 0, 1),)), (("quorum", 0, 0), (("message", ALL, 1),)))
    script = Script(
        network(4, 0),
        (Kind(0), Kind(1)),
        (TallySpec(1, (4,)),),
        (),
        ((7, ("message", 0, ALL, 0)), (7, ("vote", 0, 0, 1))),
        reactions,
    )
    told = story(script)
    assert {w[0] for w in told.wakes} == {7}
    assert told.counters["delivered"] == 3 + 4 * 3 + 4 * 3


def test_a_slow_processor_takes_proportionally_longer() -> None:
    kinds = (Kind(0, sign_ns=100, verify_ns=200, handle_ns=300),)
    told = story(Script(network(2, cpu_q10=(2048, 512)), kinds, actions=((0, ("message", 0, 1, 0)),)))
    assert told.copies[0][ARRIVED : DONE + 1] == (1200, 1200, 1300, 1450)
