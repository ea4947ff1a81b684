"""Offers a trainer that needs what is not installed, and one whose module is broken."""

from fst_core import Component, hookimpl


@hookimpl
def fst_trainers():
    yield Component(
        "needy",
        "fst_fake_needs_nothing:Trainer",
        "Needs a package that does not exist.",
        needs=("fst_fake_absent", "json"),
    )
    yield Component("lost", "fst_fake_needs_nothing:Trainer", "Its module does not exist.")
    yield Component(
        "unset", "json:loads", "Its settings do not exist.", settings="json:no.such.Settings"
    )
    yield Component("ends", "fst_fake_ends:Trainer", "Its module ends the process.")
