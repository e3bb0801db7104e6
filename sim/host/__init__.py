"""Hosts: each joins one replica of a protocol to the engine; `Run` owns all of them."""

from sim.host.context import ReplicaContext
from sim.host.costs import Costs, ProtocolError
from sim.host.event_loop import OUT_OF_TIME
from sim.host.run import Contradiction, Run, Service, Wrapper

__all__ = ["OUT_OF_TIME", "Contradiction", "Costs", "ProtocolError", "ReplicaContext", "Run", "Service", "Wrapper"]
