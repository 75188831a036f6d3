"""Variables of the role `people`: who can sign in."""

from __future__ import annotations

from typing import Any

from ringfence.compile.plan import Plan

# Where the portal finds them, on its host.
DIRECTORY = "/srv/ringfence/people"


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the people of the lab, on the portal's host, unless a directory knows them; nobody elsewhere."""
    portal = plan.lab.portal
    if portal is None or portal.host != host or portal.ldap:
        return {}
    return {
        "people_file": f"{DIRECTORY}/users.yml",
        "people_users": {
            name: {
                "displayname": person.name or name,
                "email": person.email,
                "groups": list(person.groups),
                "disabled": person.disabled,
                "password": person.password,
            }
            for name, person in sorted(plan.lab.people.items())
        },
    }
