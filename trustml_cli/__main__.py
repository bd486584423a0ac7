"""`python -m trustml_cli` is `trustml`."""

from trustml_cli.run import main

main()
