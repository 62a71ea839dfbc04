from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.own_server import OwnServer, StillRunning

DEAF = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("hard of hearing", flush=True)
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""


def test_a_server_that_does_not_heed_says_what_it_does_and_can_be_killed(tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    command = [sys.executable, "-c", DEAF, str(marker)]
    server = OwnServer("deaf://", command, tmp_path, lambda url: marker.exists())
    server.start()
    try:
        with pytest.raises(StillRunning, match=r"SIGINT had no effect in 0.2 s: \d+ sleeping") as told:
            server.stop(patience_s=0.2)
        assert "hard of hearing" in str(told.value)
        server.kill()
        server.stop(signal.SIGQUIT)
    finally:
        server.remove()
