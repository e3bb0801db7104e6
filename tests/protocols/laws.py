"""What the conformance suite asks of each protocol: one row per entry of the protocol table.

A row states the published figures of the fault-free case, parameters that make trouble cheap to simulate, and which
checks do not apply to the protocol, with the words of its docs page that say why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any


def third(n: int) -> int:
    """Faults that a quorum above two thirds tolerates."""
    return (n - 1) // 3


def half(n: int) -> int:
    """Faults that a majority tolerates."""
    return (n - 1) // 2


TENDERMINT_MS = {
    "timeout_propose": 300,
    "timeout_propose_delta": 5,
    "timeout_prevote": 100,
    "timeout_prevote_delta": 5,
    "timeout_precommit": 100,
    "timeout_precommit_delta": 5,
    "resend_after": 700,
}


def one_rotation_s(ms: dict[str, int], n: int, reached: int, delay_ms: float) -> float:
    """How long after messages cease to be lost Tendermint decides, when the highest round by then is `reached`.

    What was lost is heard again within two periods of `resend_after` (one has just begun; or who is further answers).
    From then on a round fails only if its proposer does not know the value of the highest lock. Locks of before stay:
    line 36 makes a value valid in its own round only. Whoever has that lock proposes its value within n rounds, and
    all vote for it, as prevotes of earlier rounds are repeated. A round lasts its three timeouts and four delays.
    """
    waits = ms["timeout_propose"] + ms["timeout_prevote"] + ms["timeout_precommit"] + 4 * delay_ms
    growth = ms["timeout_propose_delta"] + ms["timeout_prevote_delta"] + ms["timeout_precommit_delta"]
    return (2 * ms["resend_after"] + sum(waits + growth * round_ for round_ in range(reached, reached + n))) / 1000


def rounds_before(ms: dict[str, int], heals_s: float, delay_ms: float) -> int:
    """The most rounds until then: one lasts timeout_precommit and three delays at least."""
    return int(1000 * heals_s / (ms["timeout_precommit"] + 3 * delay_ms))


PERIOD_MS = 100
NO_VOTES = "Conformance laws on votes do not apply: there are none"
NO_CERTIFICATES = "Agreement is not promised while messages are lost: final means buried, not certified"


@dataclasses.dataclass(frozen=True)
class Law:
    """One protocol's row."""

    messages: Callable[[int], int]  # per decision, n voters, without client traffic
    delays: int  # one-way delays from proposal to decision at the first replica, all equal, no CPU
    faults: Callable[[int], int]  # tolerated crashes
    quick: dict[str, Any]  # protocol parameters for runs with faults
    patient: dict[str, Any]  # ... for runs whose delays are scaled: no timeout is near
    heals_within_s: float  # liveness bound after faults end, with the quick parameters
    once_per_view: tuple[str, ...] = ()  # votes of which a replica casts one per view
    once_per_place: tuple[str, ...] = ()  # ... one per view and number
    exempt: dict[str, str] = dataclasses.field(default_factory=dict)  # check -> sentence on the docs page
    periods: Callable[[int], int] | None = None  # in place of delays, where blocks come by the clock
    clock: str = ""  # the parameter that is its period: PERIOD_MS in all runs, scaled with the delays
    lingers_s: float = 0.1  # so long after one crash too many what was under way is still decided
    once_per_block: tuple[str, ...] = ()  # of which blocks it builds one: on a "parent", in a "view"

    def timed(self, parameters: dict[str, Any], scale: int = 1) -> dict[str, Any]:
        """Parameters, with the period if there is one."""
        return parameters | ({self.clock: f"{PERIOD_MS * scale} ms"} if self.clock else {})


LAWS: dict[str, Law] = {
    "pbft": Law(
        messages=lambda n: 2 * n * (n - 1),
        delays=3,
        faults=third,
        quick={"request_timeout": "300 ms"},
        patient={"request_timeout": "100 s"},
        heals_within_s=6,
        once_per_place=("PREPARE", "COMMIT"),
    ),
    "wheat": Law(
        messages=lambda n: (2 * n + 1) * (n - 1),
        delays=3,
        faults=third,
        quick={"request_timeout": "300 ms"},
        patient={"request_timeout": "100 s"},
        heals_within_s=6,
        once_per_place=("PREPARE", "COMMIT"),
    ),
    "rpbft": Law(
        messages=lambda n: 2 * min(n, 4) * (min(n, 4) - 1),  # its default is a group of four
        delays=3,
        faults=lambda n: third(min(n, 4)),
        quick={"request_timeout": "300 ms", "epoch": 3},
        patient={"request_timeout": "100 s"},
        heals_within_s=6,
        once_per_place=("PREPARE", "COMMIT"),
    ),
    "ibft": Law(
        messages=lambda n: (2 * n + 1) * (n - 1),
        delays=3,
        faults=third,
        quick={"round_timeout": "300 ms"},
        patient={"round_timeout": "100 s"},
        heals_within_s=6,
        once_per_place=("PREPARE", "COMMIT"),
    ),
    "qbft": Law(
        messages=lambda n: (2 * n + 1) * (n - 1),
        delays=3,
        faults=third,
        quick={"round_timeout": "300 ms"},
        patient={"round_timeout": "100 s"},
        heals_within_s=6,
        once_per_place=("PREPARE", "COMMIT"),
    ),
    "tendermint": Law(
        messages=lambda n: (2 * n + 1) * (n - 1),
        delays=3,
        faults=third,
        quick={key: f"{value} ms" for key, value in TENDERMINT_MS.items()},
        patient={"timeout_propose": "100 s"},
        # Seven voters, delays of 10 ms at least, and of 15 ms with 30 % of jitter while messages are lost.
        heals_within_s=math.ceil(one_rotation_s(TENDERMINT_MS, 7, rounds_before(TENDERMINT_MS, 1.5, 10), 20)),
        once_per_place=("PREVOTE", "PRECOMMIT"),
    ),
    "raft": Law(
        messages=lambda n: 2 * (n - 1),
        delays=2,
        faults=half,
        quick={},
        patient={"election_timeout_low": "1 s", "election_timeout_high": "1.5 s", "heartbeat_interval": "900 ms"},
        heals_within_s=4,
        once_per_view=("VOTE",),
        once_per_place=("ACK",),
    ),
    "hotstuff": Law(
        messages=lambda n: 2 * (n - 1),
        delays=6,
        faults=third,
        quick={"view_timeout": "300 ms", "view_timeout_max": "1 s"},
        patient={"view_timeout": "100 s", "view_timeout_max": "100 s"},
        heals_within_s=8,
        once_per_view=("VOTE",),
        exempt={"crashes": "With round-robin leaders, crashed voters can keep the three-chain from ever forming"},
    ),
    "hotstuff-basic": Law(
        messages=lambda n: 8 * (n - 1),
        delays=6,
        faults=third,
        quick={"view_timeout": "300 ms", "view_timeout_max": "1 s"},
        patient={"view_timeout": "100 s", "view_timeout_max": "100 s"},
        heals_within_s=8,
        once_per_view=("PREPARE_VOTE", "PRE_COMMIT_VOTE", "COMMIT_VOTE", "NEXT_VIEW"),
    ),
    "hotstuff-2": Law(
        messages=lambda n: 4 * (n - 1),
        delays=4,
        faults=third,
        quick={"view_timeout": "300 ms", "view_timeout_max": "1 s", "delta": "50 ms"},
        patient={"view_timeout": "100 s", "view_timeout_max": "100 s", "delta": "10 s"},
        heals_within_s=8,
        once_per_view=("VOTE", "VOTE2"),
    ),
    "kauri": Law(
        messages=lambda n: 2 * (n - 1),
        delays=12,
        faults=third,
        quick={"view_timeout": "300 ms", "view_timeout_max": "1 s", "aggregation_timeout": "60 ms"},
        patient={"view_timeout": "100 s", "view_timeout_max": "100 s", "aggregation_timeout": "100 s"},
        heals_within_s=8,
        exempt={
            "n=1": "A tree of one voter reaches nobody",
            "votes once": "Votes travel as messages here",
            "halt": "After a halt, voters that are behind still learn what was final before it",
        },
    ),
    "jolteon": Law(
        messages=lambda n: 2 * (n - 1),
        delays=4,
        faults=third,
        quick={"view_timeout": "300 ms", "view_timeout_max": "1 s"},
        patient={"view_timeout": "100 s", "view_timeout_max": "100 s"},
        heals_within_s=8,
        once_per_view=("VOTE",),
    ),
    "clique": Law(
        messages=lambda n: n - 1,
        delays=0,
        periods=lambda n: n // 2 + 1,
        clock="block_period",
        faults=half,
        quick={"wiggle": "50 ms", "status_interval": "300 ms", "request_timeout": "200 ms"},
        patient={"wiggle": "1000 s"},
        heals_within_s=8,
        lingers_s=2,
        once_per_block=("parent",),
        exempt={"votes once": NO_VOTES, "loss": NO_CERTIFICATES},
    ),
    "aura": Law(
        messages=lambda n: n - 1,
        delays=0,
        periods=lambda n: 2 * n // 3,
        clock="step_duration",
        faults=third,
        quick={"request_timeout": "200 ms"},
        patient={},
        heals_within_s=8,
        lingers_s=2,
        once_per_block=("view",),
        exempt={"votes once": NO_VOTES, "loss": NO_CERTIFICATES},
    ),
}
