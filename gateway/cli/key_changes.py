"""Have the running gateways reload their keys, and report which keys are in force."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ..wording import counted

if TYPE_CHECKING:
    from ..settings.schema import Settings

PATIENCE = 5.0  # seconds that a gateway may take to read the file; a suspended process never answers
NOBODY = (
    "No running gateway could be told. A gateway that uses this file and was not reached applies it within half"
    " a minute, or at once on SIGHUP, if the file still exists."
)


def told(settings: Settings) -> str:
    """Have every gateway of this user read its keys again. Return what that changed for the key file of the settings.

    All admin sockets of the user are asked, because a port may have been chosen on the command line.
    """
    from ..settings.bind import admin_paths
    from ..telemetry.printable import one_line
    from .operator import Absent, Operator

    ours, follow, deaf = os.path.realpath(settings.gateway.keys_file), [], []
    for path in admin_paths(settings.gateway.admin_socket):
        try:
            answer = Operator(path, patience=PATIENCE).ask("POST", "/admin/keys/reload")
        except Absent:
            continue
        except click.ClickException as error:
            deaf.append(f" The gateway at {path} did not confirm the change: {one_line(error.message)}.")
            continue
        if answer["file"] == ours:
            follow.append(f"the gateway at {path} has {counted(len(answer['keys']), 'key')} of it")
    said = f"In force: {', '.join(follow)}." if follow else "" if deaf else NOBODY
    return (said + "".join(deaf)).strip()
