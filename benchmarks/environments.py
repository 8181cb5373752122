"""Where a method runs: in this process, or in a worker that measures inside itself."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
import uuid
from types import ModuleType

import numpy as np

from benchmarks.worker import Runner
from testing import ROOT, peers

BUILD = ROOT / "build" / "benchmarks"
# Peers that want other versions than jaxtv: each has an environment of its own, made on first use.
# The first of its packages is the peer, `python` the oldest Python that it takes, `build` what must
# be there before it is compiled.
OWN = json.loads((ROOT / "benchmarks" / "peers.json").read_text())["environments"]


class NotInstalledError(Exception):
    """A peer can not be had here; the message says why."""


def pins() -> dict[str, str]:
    """Peer -> the version that the suite is made for."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extra = tomllib.load(file)["project"]["optional-dependencies"]["bench"]
    own = [environment["packages"][0] for environment in OWN.values()]
    pinned = dict(pin.split("==") for pin in [*extra, *own] if "==" in pin)
    return {"prox_tv": peers.VERSION, **pinned}


@functools.cache
def prox_tv() -> ModuleType:
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        return peers.prox_tv(lambda: BUILD)
    except RuntimeError as error:
        raise NotInstalledError(str(error).splitlines()[-1]) from error


def _interpreter(oldest: str) -> str:
    """A Python that is at least as new as `oldest`, "3.12" say."""
    minor = int(oldest.split(".")[1])
    if sys.version_info >= (3, minor):
        return sys.executable
    for name in (f"python3.{m}" for m in range(minor, minor + 3)):
        path = shutil.which(name)
        if path and not subprocess.run([path, "-V"], capture_output=True, check=False).returncode:
            return path
    raise NotInstalledError(f"needs Python {oldest} or newer, and there is none on PATH")


def _own_python(name: str, may_install: bool) -> str:
    """The Python of a peer's own environment."""
    home, packages = BUILD / name, OWN[name]["packages"]
    before = OWN[name].get("build", [])
    python, ready = home / "bin" / "python", home / "ready"
    if ready.exists() and ready.read_text() == " ".join(packages):
        return str(python)
    if not may_install:
        raise NotInstalledError("only the full run makes its environment")
    _run(_interpreter(OWN[name]["python"]), "-m", "venv", "--clear", str(home))
    install = (str(python), "-m", "pip", "install", "-q")
    if before:
        _run(*install, *before)
        install = (*install, "--no-build-isolation")
    _run(*install, *packages)
    ready.write_text(" ".join(packages))
    return str(python)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalledError(done.stderr.strip().splitlines()[-1])


def _one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class Here:
    """This process; all cores."""

    def build(self, build, x, lam, axes, options) -> Runner:
        return Runner(build, x, lam, axes, options)

    def clear(self) -> None:
        pass


class Worker:
    """Another process, with its own Python, environment or cores."""

    def __init__(self, python: str, environment: dict[str, str], one_core: bool):
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_one_core if one_core else None,
        )

    def ask(self, **request) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker died with status {self.process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise (NotInstalledError if reply["missing"] else RuntimeError)(reply["error"])
        return reply

    def build(self, build, x, lam, axes, options) -> RemoteRunner:
        path = pathlib.Path(self.folder.name, "input.npy")
        np.save(path, x)
        request = {"build": build, "input": str(path), "lam": lam, "axes": axes}
        key = uuid.uuid4().hex
        reply = self.ask(do="build", key=key, options=options, **request)
        path.unlink()
        return RemoteRunner(self, key, reply["rough"])

    def clear(self) -> None:
        self.ask(do="clear")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.folder.cleanup()


class RemoteRunner:
    """A `Runner` in a worker."""

    def __init__(self, worker: Worker, key: str, rough: float):
        self.worker, self.key, self.rough = worker, key, rough

    def sample(self, repeat: int) -> float:
        return self.worker.ask(do="sample", key=self.key, repeat=repeat)["seconds"]

    def output(self) -> np.ndarray:
        path = pathlib.Path(self.worker.folder.name, "output.npy")
        self.worker.ask(do="output", key=self.key, output=str(path))
        y = np.load(path)
        path.unlink()
        return y


class Environments:
    """The environments by name, each started when it is first asked for."""

    def __init__(self, may_install: bool):
        self.may_install = may_install
        self.started: dict[str, Here | Worker] = {"here": Here()}

    def __getitem__(self, name: str) -> Here | Worker:
        if name not in self.started:
            python = _own_python(name, self.may_install) if name in OWN else sys.executable
            environment = {"JAX_ENABLE_X64": "1"} if name == "float64" else {}
            self.started[name] = Worker(python, environment, one_core=name == "one core")
        return self.started[name]

    def clear(self) -> None:
        """Forgets all problems, here and in the workers."""
        for environment in self.started.values():
            environment.clear()

    def close(self) -> None:
        for environment in self.started.values():
            if isinstance(environment, Worker):
                environment.close()
