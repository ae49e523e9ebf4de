"""Makes `python -m <package>` the same as the installed command."""

from .cli import main

main()
