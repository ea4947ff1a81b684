"""Plugins whose hooks are wrong, each in its way."""
