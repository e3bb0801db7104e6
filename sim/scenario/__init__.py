"""Scenarios: schema, loading, building, running, sweeping, storing."""
