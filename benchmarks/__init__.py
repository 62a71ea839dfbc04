"""Measurements of the whole runtime against its budgets: each file one question, one table, one JSON."""
