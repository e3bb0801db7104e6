"""Protocols that decide one height after the other, in rounds: IBFT, QBFT, Tendermint."""
