"""What a block's header takes where a paper does not say: in followers' messages and in the ledger's size."""

HEADER_BYTES = 256  # parent, three roots, height, time, proposer (A)
