"""How a model's settings are written: fields of a frozen dataclass, each with its type, default and help text.

    @dataclass(frozen=True)
    class Gru4RecConfig(CommonSettings):
        width: PositiveInt = setting(32, "width of the hidden state")

The range is part of the type (`pydantic` checks it where settings come from a file or a command line), and the help
text is what `lifelong models` and the documentation show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from pydantic import Field, PositiveInt

Value = TypeVar("Value")

Share = Annotated[float, Field(ge=0, lt=1)]
"""At least 0 and below 1."""


def setting(default: Value, help: str) -> Value:
    """A field of a model's config dataclass.

    Args:
        default: value of a setting that is left out.
        help: what it is, in a few words.

    >>> from dataclasses import dataclass, fields
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     width: int = setting(32, "width of the hidden state")
    >>> Config().width, fields(Config)[0].metadata["help"]
    (32, 'width of the hidden state')
    """
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class CommonSettings:
    """Settings of nearly every model that is trained by gradient; a subclass adds its own."""

    embedding: PositiveInt = setting(16, "width of each field's embedding")
    dropout: Share = setting(0.1, "share of the head's hidden units dropped in training")
