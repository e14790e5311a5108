"""Options from a TOML file, and back."""

import json
import tomllib
from pathlib import Path
from typing import Any

import typer

_NOT_IN_FILES = ("config", "as_json", "help")


def load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the command; flags still win over them."""
    if path is None:
        return None
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path}: {error}") from error
    values = {name.replace("-", "_"): value for name, value in found.items()}
    known = [str(p.name) for p in ctx.command.params if p.name not in _NOT_IN_FILES]
    unknown = [name for name in values if name not in known]
    if unknown:
        told = f"expected keys among {', '.join(known)}; got {', '.join(unknown)}."
        raise typer.BadParameter(f"{path}: {told}")
    from otflow.cli.tables import join_names

    lists = {k: join_names(v) for k, v in values.items() if isinstance(v, list)}
    ctx.default_map = values | lists
    return path


def to_toml(options: dict[str, Any]) -> str:
    """Options that are set, a line each, as `load_config` reads them."""
    lines = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        plain = str(value) if isinstance(value, Path) else value
        lines.append(f"{name} = {json.dumps(plain, ensure_ascii=False)}\n")
    return "".join(lines)
