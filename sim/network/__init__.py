"""Network facts and models: sites, latency, topology, cryptography costs."""
