"""The command line: what runs, lists, compares and shows."""
