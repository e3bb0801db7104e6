"""What a run is worth in numbers: folds over the trace, and the flat table of metrics (defined in docs/metrics.md)."""
