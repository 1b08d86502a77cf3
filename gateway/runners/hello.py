"""The first frame of the gateway to a worker."""

from __future__ import annotations

from ..wire import frames, plain
from .replica import Launch


def hello_of(launch: Launch) -> frames.Hello:
    return frames.Hello(
        version=frames.VERSION,
        model=plain.from_spec(launch.spec),
        slots=launch.spec.limits.slots,
        max_waiting=launch.spec.limits.max_queue,
        secrets=dict(launch.secrets),
        deployment=dict(launch.deployment) if launch.deployment is not None else None,
        plugin_dirs=[str(path) for path in launch.plugin_dirs],
        endpoint_methods=list(launch.endpoint_methods),
        queue_timeout=launch.spec.limits.queue_timeout,
        cancel_grace=launch.spec.limits.cancel_grace,
        debug=launch.debug,
        taken_ports=list(launch.taken_ports),
    )
