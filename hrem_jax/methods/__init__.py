"""The systems of the field: one file each, one interface (`method`), one table of them (`registry`)."""
