"""Measures coverage in every child process of a test run, Ray's workers included.

Ray ends its workers without running exit handlers, so a thread saves what was measured every second.
Active only when PARLEY_COVERAGE_RC names the configuration (tests/run_suites.py sets it).
"""

import os
import threading

if os.environ.get("PARLEY_COVERAGE_RC"):
    import coverage

    _measured = coverage.Coverage(
        config_file=os.environ["PARLEY_COVERAGE_RC"],
        data_file=os.environ["PARLEY_COVERAGE_DATA"],
        data_suffix=True,
        messages=False,
    )
    _measured.start()
    _stop = threading.Event()

    def _save_for_ever() -> None:
        while not _stop.wait(1.0):
            _measured.save()

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
