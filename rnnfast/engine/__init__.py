"""Under the layers: the pool of threads and its share of a busy machine, locks, arrays that stay in place."""
