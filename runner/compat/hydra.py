"""Private APIs of Hydra and OmegaConf. It is imported on use, so that the error for a missing name is one line."""

from __future__ import annotations

from argparse import ArgumentParser

from omegaconf import Container

from runner.compat.private import private_api

CHECKED = "1.3.8"
_CHECKED_OMEGACONF = "2.3.1"


def arguments_parser() -> ArgumentParser:
    """Return the parser of Hydra's own flags; Hydra itself reports a mistake with its usage and exit code 2."""
    with private_api("hydra-core", CHECKED):
        from hydra._internal.utils import get_args_parser
    return get_args_parser()


def mappings_of(override: str) -> list[list[tuple[str, object]]]:
    """Return the keys of each mapping in an override, such as `key={a: 1}`: each as it is written, and its value.

    Hydra itself makes a dict of each mapping, which keeps only one of several equal keys.
    """
    with private_api("hydra-core", CHECKED):
        from antlr4 import CommonTokenStream, InputStream
        from hydra.core.override_parser.overrides_parser import create_functions
        from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
        from hydra.core.override_parser.types import ParsedElementType
        from hydra.grammar.gen.OverrideLexer import OverrideLexer
        from hydra.grammar.gen.OverrideParser import OverrideParser

        found: list[list[tuple[str, object]]] = []

        class Visitor(HydraOverrideVisitor):
            def visitDictContainer(self, ctx: OverrideParser.DictContainerContext) -> dict[str, ParsedElementType]:
                pairs = [ctx.getChild(place) for place in range(1, ctx.getChildCount() - 1, 2)]
                found.append([(pair.getChild(0).getText(), self.visitDictKey(pair.getChild(0))) for pair in pairs])
                return super().visitDictContainer(ctx)

        parser = OverrideParser(CommonTokenStream(OverrideLexer(InputStream(override))))
        Visitor(create_functions()).visit(parser.override())  # type: ignore[no-untyped-call]
    return found


def root_of(node: Container) -> Container:
    """Return the whole config that contains a section, such as the section that an error is about."""
    with private_api("omegaconf", _CHECKED_OMEGACONF):
        return node._get_root()
