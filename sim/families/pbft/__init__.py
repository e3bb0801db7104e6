"""PBFT and its variants: a group that orders batches, its view change, and how it brings a member up to date."""
