"""Where else a run can be looked at while it goes on, one tracker per file."""
