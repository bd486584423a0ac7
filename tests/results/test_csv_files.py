"""Tables written without pandas are those that pandas writes and reads."""

from math import inf, nan

import pandas

from trustml_cli.results.csv_files import as_csv, rows_as_csv


def test_rows_are_written_as_pandas_writes_a_table_of_them() -> None:
    rows = [
        {"name": "a,b", "number": 0.1, "whole": 3, "flag": True, "=1+1": "=1+1"},
        {"name": 'say "x"', "number": 1e-20, "whole": -4, "flag": False, "=1+1": "two\nlines"},
        {"name": "", "number": inf, "whole": 0, "flag": True, "=1+1": "-0.5"},
        {"name": None, "number": nan, "whole": 10**18, "flag": False, "=1+1": "é"},
    ]
    assert rows_as_csv(rows) == as_csv(pandas.DataFrame(rows))
    assert rows_as_csv(rows, header=False) == as_csv(pandas.DataFrame(rows), header=False)

    assert rows_as_csv([{"a": 1}, {"b": 2.5}]) == "a,b\n1,\n,2.5\n"  # pandas would make 1.0 of the 1
