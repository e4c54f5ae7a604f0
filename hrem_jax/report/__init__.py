"""Things to look at: pages and plots."""
