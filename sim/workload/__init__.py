"""Workloads: who sends which transactions, when and from where."""
