"""Predictions of whole deployed platforms, held against measurements of the real ones (`measured.csv`)."""
