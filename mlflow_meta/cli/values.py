"""What may be written behind options: times, addresses, conditions."""

from __future__ import annotations

from typing import Any

import click


class Seconds(click.ParamType[float]):
    """A time such as 90, 90s, 10m or 2h, in seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds; fails with a usage error."""
        text = str(value).strip().lower()
        factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
        try:
            seconds = float(text[:-1]) * factor if factor else float(text)
        except ValueError:
            seconds = -1
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is no time: write 90, 90s, 10m or 2h.", param, ctx)
        return seconds


def checked_address(_: click.Context, __: click.Parameter, address: str | None) -> str | None:
    """A callback: the address of a cluster that may be one; fails with a usage error."""
    if address:
        from mlflow_meta.cluster import check_address

        try:
            check_address(address)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return address


def checked_conditions(
    _: click.Context, __: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """A callback: conditions that can be read; fails with a usage error."""
    if given:
        from mlflow_meta.space.narrow import asked

        try:
            for text in given:
                asked(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return given
