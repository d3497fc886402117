"""What continuous integration runs, for one's own machine: ``nox``, or ``nox -s lint``. ``nox -l`` lists the sessions.

`.ci/run` runs the same sessions without environments of their own (``--no-venv``), where the tools are installed.
"""

from __future__ import annotations

import pathlib
import shutil

import nox

PYTHONS = ["3.11", "3.12", "3.13"]

nox.needs_version = ">=2025.2.9"  # session.install with dependency groups
nox.options.sessions = ["lint", "types", "docs", "package", "wheel", "tests"]
nox.options.reuse_venv = "yes"


def install(session: nox.Session, *packages: str) -> None:
    """Install into the session's environment, if it has one."""
    if session.virtualenv.is_sandboxed:
        session.install("--upgrade", "pip")  # --group needs pip 25.1
        session.install(*packages)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, asynchronous pitfalls, layers."""
    install(session, "-e", ".[cli,otel]", "--group", "lint")
    session.run("python", "-m", "ruff", "check", ".")
    session.run("python", "-m", "ruff", "format", "--check", ".")
    session.run("python", "-m", "flake8", "engine")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the library, the benchmarks, the tests and the documentation's programs, by mypy and pyright."""
    # Not editable: what is checked for complete types is what users get.
    install(session, ".[cli,otel]", "--group", "dev")
    session.run("python", "-m", "docs.programs", "build/programs")
    session.run("python", "-m", "mypy")
    session.run("python", "-m", "mypy", "--strict", "build/programs")
    session.run("python", "-m", "pyright", "tests/typing", "build/programs", "docs/examples")
    # From outside the checkout, so that the installed package is what it finds.
    session.chdir(session.create_tmp())
    session.run("python", "-m", "pyright", "--ignoreexternal", "--verifytypes", "engine")
    session.chdir(pathlib.Path(__file__).parent)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in build/docs; warnings are errors."""
    install(session, "-e", ".[cli,otel]", "--group", "docs")
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "dirhtml", "docs", "build/docs")


@nox.session
def package(session: nox.Session) -> None:
    """The source distribution, and the wheel made from it, in dist."""
    install(session, "--group", "lint")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", "dist", ".", silent=True)


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """The wheel in dist, installed alone, answers from outside the checkout; after ``package``."""
    (path,) = pathlib.Path("dist").glob("*.whl")
    session.install("--force-reinstall", f"{path}[cli]")
    session.chdir(session.create_tmp())
    session.run("python", "-m", "engine", "--version")
    offline = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None}
    answer = session.run("python", "-m", "engine", "ask", "What is 2+2?", silent=True, env=offline)
    if str(answer).split()[-1:] != ["4"]:
        session.error(f"it answers {answer!r}")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite on each Python, without sweeps. ``nox -s tests-3.13 -- -k cancel`` gives pytest arguments."""
    install(session, "-e", ".[cli,otel]", "--group", "test")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def sweeps(session: nox.Session) -> None:
    """The tests that are marked slow: cancellation at every step, chaos, fuzzing, processes; minutes on two cores."""
    install(session, "-e", ".[cli,otel]", "--group", "test")
    session.run("python", "-m", "pytest", "-m", "slow", "-n", "auto", "--dist", "worksteal", *session.posargs)
