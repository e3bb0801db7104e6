"""Protocols of certified blocks: the HotStuffs, Jolteon, Kauri."""
