"""Corrupted replicas: one file, one behaviour, usable with every protocol.

A corrupted replica runs the protocol's own code behind a wrapper (`sim.adversary.wrapper`), which sees what the
replica wants to say and what it is told, and changes it as its behaviours say. Signatures cannot be forged: a
wrapper can only withhold, delay, repeat and double what its own replica says.
"""
