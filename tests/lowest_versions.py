"""Print the lowest versions that setup.cfg names, of the package and its extras, as constraints for pip.

`make test-lowest` installs them: a lower bound that nobody tries is a guess.
"""

from configparser import ConfigParser
from pathlib import Path


SETUP = Path(__file__).parents[1] / "setup.cfg"


def lowest_versions(setup: Path) -> list[str]:
    """Every requirement of `setup`, once, with its lower bound as the only version: "torch>=2.11" -> "torch==2.11".

    Raises:
        ValueError: a requirement is not of the form name>=version.
    """
    config = ConfigParser()
    config.read_string(setup.read_text())
    groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lowest = []
    for requirement in dict.fromkeys(line for group in groups for line in group.split()):
        name, bound, version = requirement.partition(">=")
        if not bound or any(sign in version for sign in "<>=!~,;"):
            raise ValueError(
                f"{setup.name}: {requirement!r} must be name>=version, the lowest that the tests pass with"
            )
        lowest.append(f"{name}=={version}")
    return lowest


if __name__ == "__main__":
    print("\n".join(lowest_versions(SETUP)))
