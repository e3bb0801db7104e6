"""Tables, figures and maps of finished runs. Nothing here opens a trace or computes a metric anew."""
