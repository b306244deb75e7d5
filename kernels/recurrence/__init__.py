"""The only time loop, for any cell: forward, backward, and its products over all steps."""
