"""The output vocabulary of a run: typed, columnar events. Everything measured or checked is derived from them."""
