"""Faults that a scenario scripts: crashes, lost domains, cut and degraded links, partitions."""
