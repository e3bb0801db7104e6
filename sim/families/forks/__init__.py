"""Chains in which blocks compete: Clique, Aura."""
