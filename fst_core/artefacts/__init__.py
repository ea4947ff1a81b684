"""Artefacts: what FST makes and keeps. Each directory says in `fst.json` what it is and where it came from.

An artefact names code and never carries it; nothing here reads pickle.
"""

from fst_core.artefacts.manifest import read_manifest, verify, write_manifest
from fst_core.artefacts.model import LoadedModel, load_model, load_tokenizer
from fst_core.artefacts.provenance import record, resolve
from fst_core.artefacts.publish import numbered, publishing

__all__ = [
    "LoadedModel",
    "load_model",
    "load_tokenizer",
    "numbered",
    "publishing",
    "read_manifest",
    "record",
    "resolve",
    "verify",
    "write_manifest",
]
