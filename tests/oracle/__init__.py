"""A second engine, naive and independent of the first: what the compiled engine must agree with."""
