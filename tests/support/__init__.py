"""What tests and benchmarks share: tiny artifacts, servers, kill harness, planted worlds."""
