"""Statistics of studies: no mean without its interval.

Which interval answers which question is told in docs/guides/statistics.md. Read in this order: ``intervals`` (one
sample), ``bootstrap`` (statistics without a formula), ``warmup`` and ``batches`` (series within runs), ``compare``
(several designs), ``sequential`` (how many replications) and ``saturation`` (where committed leaves offered).
Everything is a pure function of its arguments; data that cannot answer a question raise `SampleError`.
"""

from sim.measure.statistics.batches import BatchMeans, batch_means, lag1_check, replication_deletion
from sim.measure.statistics.bootstrap import bca_interval
from sim.measure.statistics.compare import (
    Difference,
    against_control,
    all_pairs,
    independent,
    paired,
    paired_against_control,
)
from sim.measure.statistics.intervals import (
    Interval,
    SampleError,
    proportion_interval,
    quantile_interval,
    ratio_interval,
    rule_of_three,
    t_interval,
)
from sim.measure.statistics.saturation import Load, Saturation, find_saturation
from sim.measure.statistics.sequential import Standing, Target, replicate, standing
from sim.measure.statistics.warmup import Truncation, mser5

__all__ = [
    "BatchMeans",
    "Difference",
    "Interval",
    "Load",
    "SampleError",
    "Saturation",
    "Standing",
    "Target",
    "Truncation",
    "against_control",
    "all_pairs",
    "batch_means",
    "bca_interval",
    "find_saturation",
    "independent",
    "lag1_check",
    "mser5",
    "paired",
    "paired_against_control",
    "proportion_interval",
    "quantile_interval",
    "ratio_interval",
    "replicate",
    "replication_deletion",
    "rule_of_three",
    "standing",
    "t_interval",
]
