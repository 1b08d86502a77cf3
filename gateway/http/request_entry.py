"""The checks before any HTTP request is answered: the guard, the row in the route table, and the scope of that row.

A caller without the scope for a route or a model does not learn whether it exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import GatewayError, PermissionDenied
from .guards import check_scope
from .routes import audit_orders

if TYPE_CHECKING:
    from .exchange import Exchange
    from .guards import Guard
    from .routing import Handler, Routes


class Entrance:
    def __init__(self, guard: Guard, routes: Routes) -> None:
        self._check, self._routes, self._find = guard.check, routes, routes.find

    def admit(self, exchange: Exchange) -> Handler | None:
        """Return the handler of the request, or None if Litestar handles it.

        1. Check the origin and the caller. 2. Find the row of the route. 3. Check that the caller has the row's scope.

        Raises:
            GatewayError: it is refused.
        """
        try:
            self._check(exchange)
        except GatewayError as error:
            self._refused(exchange, error)
            raise
        if exchange.permits is None:
            return self._find(exchange)
        try:
            return self._find(exchange)
        finally:  # only callers with the scope may learn that something does not exist
            self._check_scope(exchange)

    def _check_scope(self, exchange: Exchange) -> None:
        try:
            check_scope(exchange)
        except GatewayError as error:
            self._refused(exchange, error)
            raise

    def _refused(self, exchange: Exchange, error: GatewayError) -> None:
        self._routes.name(exchange)
        if isinstance(error, PermissionDenied):
            audit_orders.tell_refused(exchange, error)
