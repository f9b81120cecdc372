"""Entry: `python3 tests/checker/fvd_check`, or `python3 -m fvd_check` with `tests/checker` in the path."""

import sys

sys.dont_write_bytecode = True  # leaves no `__pycache__` in the source tree

if not __package__:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fvd_check.cli import main  # noqa: E402  (the path has to be right first)

sys.exit(main())
