"""Whether a container's own name, of which Docker tells its neighbours, is another's in the lab."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.host.passing import calls_itself
from ringfence.model.expand import ROLE_SERVICES
from ringfence.model.problems import Problem
from ringfence.model.read import Draft


def posing(draft: Draft) -> Iterator[Problem]:
    """Refuse a hostname by which who asks for another service, or for a site, would find this one as well."""
    for name, service in draft.lab.services.items():
        if service.network:
            continue  # of none of these does Docker tell others a name
        others = dict(_names(draft, name))
        for called in calls_itself(service.compose):
            if called in others:
                yield Problem(
                    f"lab_services.{name}.compose",
                    f"'hostname' is {called}, the name of {others[called]}: Docker answers for both, and who asks for "
                    "that one finds this one (leave it out, or write another)",
                )
                break


def _names(draft: Draft, name: str) -> Iterator[tuple[str, str]]:
    """Yield every name that is not a service's own, and whose it is."""
    lab = draft.lab
    for other, service in lab.services.items():
        if other != name:
            whose = f"the service '{other}'" if other not in ROLE_SERVICES else f"'{other}' ({ROLE_SERVICES[other]})"
            yield f"{lab.project(other)}-{other}-1", whose
            yield f"{other}.{lab.domain}", whose
            if service.site:
                yield service.site.name, f"the site of {whose}"
                yield f"{service.site.name}.{lab.domain}", f"the site of {whose}"
            yield other, whose
    if lab.portal:
        yield f"{lab.portal.site}.{lab.domain}", "the portal's site"
