"""Hosts: each joins one replica of a protocol to the engine; `Run` owns all of them."""

from sim.host.costs import Costs, ProtocolError
from sim.host.run import Breach, Disguise, Run, Service
from sim.host.seat import Host
from sim.host.wake import OUT_OF_TIME

__all__ = ["OUT_OF_TIME", "Breach", "Costs", "Disguise", "Host", "ProtocolError", "Run", "Service"]
