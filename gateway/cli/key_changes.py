"""Telling the running gateways that the file of keys is another one, and their user what is in force."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ..wording import counted

if TYPE_CHECKING:
    from ..settings import Settings

PATIENCE = 5.0  # seconds that a gateway may take to read a file: one that has been stopped says nothing
NOBODY = (
    "No running gateway could be told: one that has this file and that this command does not reach follows within half"
    " a minute, or at once on SIGHUP, if the file is still there."
)


def told(settings: Settings) -> str:
    """Have every gateway of this user read its keys again; what came of it for the file of the settings, in words.

    Their sockets are asked and not the settings: a port may have been chosen on the command line.
    """
    from ..printable import one_line
    from ..sockets import admin_paths
    from .operator import Absent, Operator

    ours, follow, deaf = os.path.realpath(settings.gateway.keys_file), [], []
    for path in admin_paths(settings.gateway.admin_socket):
        try:
            answer = Operator(path, patience=PATIENCE).ask("POST", "/admin/keys/reload")
        except Absent:
            continue
        except click.ClickException as error:
            deaf.append(f" The gateway at {path} does not say that it follows: {one_line(error.message)}.")
            continue
        if answer["file"] == ours:
            follow.append(f"the gateway at {path} has {counted(len(answer['keys']), 'key')} of it")
    said = f"In force: {', '.join(follow)}." if follow else "" if deaf else NOBODY
    return (said + "".join(deaf)).strip()
