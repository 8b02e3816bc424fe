"""The laboratory's benchmarks, one module each."""
