"""Write the golden figures of a few scenarios: `python -m tests.golden.regenerate`. Look at the diff before a commit.

A digest says only that something changed; the figures beside it say what.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sim.scenario.load import load_scenario
from sim.scenario.run import run

HERE = Path(__file__).parent
SCENARIOS = HERE.parents[1] / "scenarios"
GOLDEN = {
    "quickstart": SCENARIOS / "quickstart.yaml",
    **{
        f"{name}-baseline": SCENARIOS / "protocols" / name / "baseline.yaml"
        for name in ("pbft", "raft", "hotstuff", "ibft", "qbft", "tendermint")
    },
}


def figures(name: str) -> dict[str, Any]:
    """What is kept of a scenario's run."""
    result = run(load_scenario(GOLDEN[name]))
    blocks = result.tables["blocks"]
    return {
        "status": result.status,
        "decisions": result.metrics["decisions"],
        "last_decision_ns": int(blocks["first_ns"].max()),
        "transactions": result.metrics["committed"],
        "messages_sent": result.metrics["messages_sent"],
        "messages_dropped": result.metrics["messages_dropped"],
        "view_changes": result.metrics["view_changes"],
        "digest": result.digest,
    }


def golden_file(name: str) -> Path:
    """Where a scenario's figures are kept."""
    return HERE / f"{name}.json"


if __name__ == "__main__":
    for each in GOLDEN:
        golden_file(each).write_text(json.dumps(figures(each), indent=2) + "\n")
        print(f"wrote {golden_file(each)}")
