"""Plugins whose names, or whose components' names, are not allowed."""
