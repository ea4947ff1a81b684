"""A plugin during whose import somebody presses Ctrl-C."""

raise KeyboardInterrupt
