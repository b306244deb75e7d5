"""Threads and processes that work together: flags, meetings, sums over ranks."""
