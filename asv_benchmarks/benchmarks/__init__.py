"""asv benchmarks of rnnfast, one file a unit; `measuring.py` and `baseline.py` hold what they share. See ../README.md."""
