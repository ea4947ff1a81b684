"""The process that renders a model's chat template, line by line of JSON, within limits.

The first line has the template and its variables, each further one a conversation; the answer to
each is a line. Jinja's sandbox keeps a template from objects that are none of its business, the
limit of memory from filling the machine; whoever asks kills the process if it takes too long.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jinja2 import Environment, Template

MEMORY = 64 * 2**20
"""Bytes that a template may take beside what the process has when it is ready."""


def main() -> None:
    """Answer until the input ends."""
    first = json.loads(sys.stdin.readline())
    try:
        environment = sandbox()
    except ImportError:
        _answer({"missing": True})
        return
    _limit_memory()
    _answer({})
    template: Template | None = None
    for line in sys.stdin:
        try:
            # Here, since to compile may take as long as to render.
            template = template or environment.from_string(first["template"])
            text = template.render(**json.loads(line), **first["variables"])
            _answer({"text": text})
        except Exception as error:  # noqa: BLE001  # a stranger's template may fail in any way
            _answer({"error": _told(error)})


def sandbox() -> Environment:
    """Return an environment with what `transformers` offers to templates."""
    from datetime import datetime

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what a model learns from; here it is what stands in it."""

        tags = {"generation"}  # noqa: RUF012  # the attribute that Jinja reads

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(["name:endgeneration"], True)
            return body

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _limit_memory() -> None:
    """Limit the address space, where the system can."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):  # not Linux: there the time alone is limited
        return


def _answer(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    main()
