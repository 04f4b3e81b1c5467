# Everything a contributor runs; `just` lists it.
default:
    @just --list

# Install the package with what development needs.
setup:
    pip install -e ".[dev]"

# Tests; those that need real photos or official numbers skip with a reason where these are absent.
test *arguments:
    pytest {{arguments}}

# Style, types, layers.
check:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

# Write docs/cli.md from the commands' own help.
docs:
    python scripts/make_cli_reference.py

# What the build server does.
ci:
    .ci/run
