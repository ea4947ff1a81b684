"""What readers of files share: their settings, which files those name, text out of bytes, the report."""
