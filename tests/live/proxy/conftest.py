"""One host with the whole door, provisioned once for all files of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab
from tests.live.proxy.client import Session, register


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """The demo as it is declared, its sites open at any hour."""
    always = {"from": "00:00", "to": "24:00", "zone": "Europe/Berlin"}
    for lab in fresh("t-door", "29", preinstalled=True, lab_hours={"evening": always}):
        lab.pyinfra()
        for person in ("owner", "anna"):
            register(lab, person)
        yield lab


_signed_in: dict[str, Session] = {}


def signed_in(lab: Lab, person: str) -> Session:
    """Somebody with both factors; again where a run has made the portal anew, which forgets everybody."""
    session = _signed_in.get(person)
    if session is None or session.ask("cloud").status != 200:
        session = _signed_in[person] = Session(lab, person, second=True)
    return session


@pytest.fixture
def anna(lab: Lab) -> Session:
    """Somebody of the family, signed in with both factors."""
    return signed_in(lab, "anna")


@pytest.fixture
def owner(lab: Lab) -> Session:
    """An admin, signed in with both factors."""
    return signed_in(lab, "owner")


@pytest.fixture
def nobody(lab: Lab) -> Session:
    return Session(lab)
