"""What a block's header takes where a protocol's paper does not say: in followers' letters and in the ledger's size."""

HEADER_BYTES = 256  # parent, three roots, height, time, proposer (A)
