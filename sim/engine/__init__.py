"""The run loop: the kernel's clock and the ledger's columns turned by one compiled function."""
