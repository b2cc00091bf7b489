"""The command line. The only package that prints or exits: results to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from mmrec.cli.adapting import add_adapt_command
from mmrec.cli.asking import add_ask_command
from mmrec.cli.demo import add_demo_command
from mmrec.cli.describing import add_describe_command
from mmrec.cli.duplicates import add_duplicates_command
from mmrec.cli.evaluating import add_evaluate_command
from mmrec.cli.explaining import add_explain_command
from mmrec.cli.history import add_history_commands
from mmrec.cli.logs import logging_to
from mmrec.cli.models import add_fit_command
from mmrec.cli.output import escape_what_cannot_be_shown, fail
from mmrec.cli.profiles import add_profiles_command
from mmrec.cli.rankings import add_ranking_commands
from mmrec.cli.reporting import add_report_command
from mmrec.cli.searching import add_search_command
from mmrec.cli.serving import add_export_interactions_command, add_serve_command, without_secrets
from mmrec.cli.stores import add_store_commands
from mmrec.cli.tagging import add_tag_command
from mmrec.cli.tuning import add_tuning_commands
from mmrec.cli.understanding import add_understand_command
from mmrec.cli.versions import add_version_commands
from mmrec.errors import MMRecError, refuse_shadowed_packages
from mmrec.tables import local_path

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed with one clear line. Wrong usage exits with 2."""
    escape_what_cannot_be_shown()
    arguments = _parser().parse_args(argv)
    warnings.simplefilter("ignore")
    sys.warnoptions = sys.warnoptions or ["ignore"]  # of the processes that it starts
    try:
        with logging_to(arguments.log_file, verbose=arguments.verbose):
            return _run(arguments)
    except MMRecError as error:  # of the log file
        print(f"mmrec: error: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    logger.info("%s", shlex.join(without_secrets(["mmrec", *sys.argv[1:]])))
    try:
        refuse_shadowed_packages()
        _refuse_urls(arguments)
        return int(arguments.run(arguments))
    except MMRecError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted")
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except ImportError as error:
        return fail(f"a library cannot be loaded, so that this installation is not whole: {error}")
    except OSError as error:
        return fail(f"{error.filename or ''} {error.strerror or error}".strip())


def _refuse_urls(arguments: argparse.Namespace) -> None:
    for path in vars(arguments).values():
        if isinstance(path, Path):
            local_path(path, MMRecError)


def _parser() -> argparse.ArgumentParser:
    from mmrec import __version__

    summary = "Item vectors, user vectors and rankings for catalogs of video, sound and text."
    parser = argparse.ArgumentParser(prog="mmrec", description=summary)
    parser.add_argument("--version", action="version", version=f"mmrec {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_demo_command(commands)
    add_store_commands(commands)
    add_history_commands(commands)
    add_fit_command(commands)
    add_evaluate_command(commands)
    add_ranking_commands(commands)
    add_search_command(commands)
    add_tag_command(commands)
    add_version_commands(commands)
    add_explain_command(commands)
    add_tuning_commands(commands)
    add_adapt_command(commands)
    add_duplicates_command(commands)
    add_report_command(commands)
    add_serve_command(commands)
    add_export_interactions_command(commands)
    add_understand_command(commands)
    add_ask_command(commands)
    add_profiles_command(commands)
    add_describe_command(commands)
    return parser
