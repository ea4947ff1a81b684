# coding: no-such-encoding
"""A plugin that Python cannot compile."""
