"""Preparation: from the documents to a published dataset."""
