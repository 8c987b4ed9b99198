"""The command ``flrplan``: plan, qc, cohort, train, train-many, networks, models, calibrate, serve, studies, doctor, demo, demo-ohif, demo-models."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from flrplan import __version__
from flrplan.commands.say import note
from flrplan.errors import FlrError

logger = logging.getLogger("flrplan")

COMMANDS = (
    "plan",
    "qc",
    "doctor",
    "cohort",
    "train",
    "train-many",
    "networks",
    "models",
    "calibrate",
    "serve",
    "studies",
    "demo",
    "demo-ohif",
    "demo-models",
)
"""Each is a module of :mod:`flrplan.commands`; only the one that is asked for is imported, so ``doctor`` runs where torch does not."""


def build_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of these commands."""
    parser = argparse.ArgumentParser(prog="flrplan", description="Planning of liver surgery from a CT. For research use only.")
    parser.add_argument("--version", action="version", version=f"flrplan {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="also show what the libraries say")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        importlib.import_module(f"flrplan.commands.{name.replace('-', '_')}").add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, or 1 after an error that was told on standard error, or 130 after Ctrl-C."""
    words = sys.argv[1:] if argv is None else list(argv)
    asked = next((word for word in words if not word.startswith("-")), "")
    try:
        arguments = build_parser([asked] if asked in COMMANDS else COMMANDS).parse_args(words)
        arguments.words = words  # a command that starts itself in several processes hands them on
        logging.basicConfig(
            level=logging.DEBUG if arguments.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
        )
        if not arguments.verbose:
            logger.setLevel(logging.INFO)
        return int(arguments.run(arguments))
    except FlrError as error:
        note(f"flrplan {asked}: {error}")
        return 1
    except KeyboardInterrupt:
        note(f"flrplan {asked}: stopped")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
