"""Hosts: each joins one replica of a protocol to the engine; `Run` owns all of them and turns the loop."""

from sim.host.costs import Costs, ProtocolError
from sim.host.run import OUT_OF_TIME, Breach, Disguise, Run, Service
from sim.host.seat import Host

__all__ = ["OUT_OF_TIME", "Breach", "Costs", "Disguise", "Host", "ProtocolError", "Run", "Service"]
