"""What the build does beyond copying files: platforms of the wheel, and a description without links that lead nowhere.

The package is Python alone, but relies on locks and renames of POSIX. A wheel for `any` platform would install on
Windows and fail at the first import; one that names its platforms is refused there by pip, before anything changes.

The description in the metadata is `README.md`. Its links and pictures are files of a checkout, which an index or
`importlib.metadata` does not have.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface
from packaging.tags import platform_tags

PLATFORMS = (
    "manylinux_2_17_x86_64",
    "manylinux_2_17_aarch64",
    "musllinux_1_1_x86_64",
    "musllinux_1_1_aarch64",
    "macosx_11_0_x86_64",
    "macosx_11_0_arm64",
)

_PICTURE = re.compile(r'<img src="(?!https://)[^>]*>\n*')
_LINK = re.compile(r"\[([^\]]+)\]\((?!https://)[^)]+\)")


class DescriptionHook(MetadataHookInterface):
    """Called by hatchling for each build."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": description(text)}


def description(readme: str) -> str:
    """Links to files of the checkout as their text alone, without pictures; absolute links stay."""
    return _LINK.sub(r"\1", _PICTURE.sub("", readme))


class PlatformHook(BuildHookInterface):
    """Called by hatchling for each wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Set the tag of the wheel; an editable install keeps its own.

        Raises:
            SystemExit: this is Windows. pip shows the message alone, without a traceback.
        """
        if sys.platform == "win32":
            raise SystemExit(
                "lifelong does not run on Windows: files there lack the locks and renames that it relies on. "
                "To do: install it in WSL."
            )
        build_data["tag"] = f"py3-none-{'.'.join(platforms())}"


def platforms() -> list[str]:
    """The platforms of the wheel; where none of them is this one, such as Linux on another processor, also this one."""
    here = set(platform_tags())
    known = here & set(PLATFORMS)
    return [*PLATFORMS] if known else [*PLATFORMS, sysconfig.get_platform().replace("-", "_").replace(".", "_")]
