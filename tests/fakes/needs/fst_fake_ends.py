"""A module of a component that ends the process when it is imported."""

import sys

sys.exit(0)
