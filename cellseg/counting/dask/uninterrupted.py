"""Loaded by each worker of a cluster that was started here: Ctrl-C is not its business."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
