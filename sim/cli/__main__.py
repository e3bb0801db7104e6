"""`python -m sim.cli`: the console script without its being installed."""

from sim.cli import main

main()
