"""From files on disk to a `Batch`."""
