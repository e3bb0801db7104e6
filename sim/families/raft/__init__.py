"""A replicated log that a leader dictates: Raft."""
