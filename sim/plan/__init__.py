"""Questions planners ask, each answered by many runs."""
