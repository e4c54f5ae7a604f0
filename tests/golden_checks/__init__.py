"""Our numbers beside those of public programs: one file a method, and what they share in `golden_file`."""
