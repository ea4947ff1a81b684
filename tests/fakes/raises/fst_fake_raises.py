"""A plugin that raises when it is imported."""

raise RuntimeError("the moon is\nfull")
