"""Questions planners ask, each answered by many runs: which design is better, how much load it carries, what it loses.

Each answer is a value with intervals and words; the command line prints it, `sim.plan.figures` draws it.
"""
