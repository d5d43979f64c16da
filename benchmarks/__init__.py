"""What the daemon costs, by its own code on real databases: ``make bench``. docs/benchmarks.md has the results."""
