"""Broken inputs through the real entry points, as a table: `cases_*.py` hold it, docs/errors.md is made of it."""
