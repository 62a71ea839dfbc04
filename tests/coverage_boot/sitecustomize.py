"""Measures coverage in every child process of a test run, Ray's workers included.

Ray ends its workers without running exit handlers, so a thread saves what was measured: every second, and on
a slow machine less often, since a cluster has some twenty processes that would save all the time.
Active only when PARLEY_COVERAGE_RC names the configuration (tests/run_suites.py sets it).
"""

import os
import threading
import time

_REST = 50.0
"""Pause between two saves over the time that one takes."""

if os.environ.get("PARLEY_COVERAGE_RC"):
    import contextlib

    import coverage
    import coverage.inorout

    # Where sys.path has changed, coverage looks its packages up again, and takes whatever was imported
    # meanwhile out of sys.modules: also what another thread is just importing, which fails (KeyError). The
    # lookup of a package at the top imports nothing.
    coverage.inorout.sys_modules_saved = contextlib.nullcontext
    _measured = coverage.Coverage(
        config_file=os.environ["PARLEY_COVERAGE_RC"],
        data_file=os.environ["PARLEY_COVERAGE_DATA"],
        data_suffix=True,
        messages=False,
    )
    _measured.start()
    _stop = threading.Event()
    # A save holds locks of SQLite's own; a process forked meanwhile would wait for them without end.
    _saving = threading.Lock()
    os.register_at_fork(
        before=_saving.acquire, after_in_parent=_saving.release, after_in_child=_saving.release
    )

    def _save_for_ever() -> None:
        took_s = 0.0
        while not _stop.wait(max(1.0, _REST * took_s)):
            began = time.monotonic()
            with _saving:
                _measured.save()
            took_s = time.monotonic() - began

    _saver = threading.Thread(target=_save_for_ever, name="coverage-saver", daemon=True)
    _saver.start()

    import atexit

    def _finish() -> None:
        _stop.set()
        # A daemon thread in the middle of a save while the interpreter ends is a fatal error of Python's.
        _saver.join(10)
        _measured.stop()
        _measured.save()

    atexit.register(_finish)
