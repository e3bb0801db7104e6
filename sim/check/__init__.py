"""Judgement of a run: pure functions and folds from trace and counters to violations."""
