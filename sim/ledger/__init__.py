"""Transactions as columns, blocks and their tree, mempools, and what each node has decided."""
