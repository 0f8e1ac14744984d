"""`python -m service`: serve until SIGTERM or SIGINT, then answer what was admitted and leave with status 0."""

import sys

from pydantic import ValidationError

from service.settings import Settings


def main() -> None:
    """Read the settings from the environment and serve; exit status 2 for a setting that is not allowed."""
    try:
        settings = Settings()
    except ValidationError as error:
        for entry in error.errors():
            name = "_".join(str(part) for part in entry["loc"]).upper()
            # Neither keys nor, where several settings do not fit together, all of what was given.
            given = f"CCNET_{name}: {entry['input']!r} was given; " if name and name != "API_KEYS" else ""
            sys.stderr.write(f"{given or 'CCNET_' + name + ': '}{entry['msg']}\n")
        sys.exit(2)
    from service.server import serve  # seconds of imports, which a wrong setting need not wait for

    sys.exit(serve(settings))


if __name__ == "__main__":
    main()
