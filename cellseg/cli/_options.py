"""Options that several commands share."""

from __future__ import annotations

import click

precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the network; auto: half where the device is faster with it.",
)
