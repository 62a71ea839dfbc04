"""Batch evaluation: a dataset through flows, single models and plain voting, on the running cluster."""
