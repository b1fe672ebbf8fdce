"""`python -m tracarbon` is `tracarbon`."""

from tracarbon.cli import main

main()
