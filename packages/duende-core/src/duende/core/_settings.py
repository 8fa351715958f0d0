"""From a settings table to the class that a daemon declares for it.

cattrs is imported only when a class is declared: most daemons have none, and a
runner should be ready soon.
"""

from __future__ import annotations

import difflib
import enum
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, get_origin

from duende.core.errors import ConfigError

if TYPE_CHECKING:
    import cattrs

    from duende.core.daemon import Daemon

__all__ = ("settings_class", "structure_settings")

_WORDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def settings_class(kind: type[Daemon]) -> Any:
    """This finds what a daemon's `settings` are annotated with; None: nothing.

    Raises:
        ConfigError: The annotation can't be resolved.
    """
    for base in kind.__mro__:
        annotation = inspect.get_annotations(base).get("settings")
        if annotation is None:
            continue
        if not isinstance(annotation, str):
            return annotation
        namespace = vars(sys.modules.get(base.__module__, object))
        try:
            # The text is source code of the daemon's own class.
            return eval(annotation, dict(namespace), dict(vars(base)))
        except Exception as error:
            raise ConfigError(
                f"{base.__qualname__}.settings: the annotation {annotation!r} can't be "
                f"resolved ({error})",
                "define that class at the top of its module",
            ) from None
    return None


def structure_settings(kind: type[Daemon], raw: object, where: str) -> Any:
    """This turns the table into the declared class, strictly.

    Args:
        kind: the Daemon class.
        raw: the table, None, or an object of the declared class already.
        where: the key path for messages, such as `daemon.ticker.settings`.

    Returns:
        The settings object; the table itself where no class is declared.

    Raises:
        ConfigError: With every problem found, one each line.
    """
    declared = settings_class(kind)
    given = {} if raw is None else raw
    if declared is None or declared is Any or declared is dict:
        return given
    origin = get_origin(declared) or declared
    if origin is dict:
        return given
    if isinstance(origin, type) and isinstance(raw, origin):
        return raw
    if raw is None or raw == {}:
        default = getattr(kind, "settings", None)
        if isinstance(origin, type) and isinstance(default, origin):
            return default
    if not (hasattr(declared, "__attrs_attrs__") or _is_dataclass(declared)):
        raise ConfigError(
            f"{where}: {declared!r} is neither an attrs class nor a dataclass",
            "annotate settings with one of these, or with dict",
        )
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected a table, not {type(given).__name__}")
    import cattrs.errors

    try:
        return _converter().structure(given, declared)
    except cattrs.errors.BaseValidationError as error:
        problems = tuple(
            f"{_render_path(where, path)}: {text}" for path, text in _walk(error, ())
        )
    raise ConfigError(f"{where} is wrong", problems=problems)


def _is_dataclass(kind: object) -> bool:
    return hasattr(kind, "__dataclass_fields__")


class _Cache:
    converter: ClassVar[cattrs.Converter | None] = None


def _converter() -> cattrs.Converter:
    """This is a cattrs converter that converts nothing silently."""
    if _Cache.converter is not None:
        return _Cache.converter
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for scalar in _WORDS:
        # cattrs alone would do str(5), bool("no") and int("7").
        converter.register_structure_hook(scalar, _scalar)
    converter.register_structure_hook_func(
        lambda kind: isinstance(kind, type) and issubclass(kind, enum.Enum), _member
    )

    unguarded: set[Any] = set()

    def guard(
        is_meant: Callable[[Any], bool], accepted: type | tuple[type, ...], word: str
    ) -> None:
        def make(kind: Any) -> Callable[[Any, Any], Any]:
            unguarded.add(kind)
            try:
                base = converter.get_structure_hook(kind, cache_result=False)
            finally:
                unguarded.discard(kind)

            def hook(value: object, kind: Any) -> object:
                if not isinstance(value, accepted):
                    raise TypeError(f"expected {word}, not {_shown(value)}")
                return base(value, kind)

            return hook

        converter.register_structure_hook_factory(
            lambda kind: is_meant(kind) and kind not in unguarded, make
        )

    # A text is a sequence too: list[str] of "abc" would be ["a", "b", "c"].
    guard(_is_sequence, (list, tuple, set, frozenset), "an array")
    guard(_is_mapping, Mapping, "a table")
    guard(_is_structure, Mapping, "a table")
    _Cache.converter = converter
    return converter


def _is_structure(kind: Any) -> bool:
    return hasattr(kind, "__attrs_attrs__") or _is_dataclass(kind)


def _is_sequence(kind: Any) -> bool:
    return (get_origin(kind) or kind) in (list, tuple, set, frozenset)


def _is_mapping(kind: Any) -> bool:
    return (get_origin(kind) or kind) is dict


def _shown(value: object) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def _scalar(value: object, kind: type) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"expected {_WORDS[kind]}, not {_shown(value)}")
    return value


def _member(value: object, kind: type[enum.Enum]) -> enum.Enum:
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        known = [str(member.value) for member in kind]
        close = difflib.get_close_matches(str(value), known, 1, 0.5)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"{value!r} is not one of {', '.join(map(repr, known))}{guess}"
        ) from None


def _walk(error: Exception, path: tuple[Any, ...]) -> Iterator[tuple[Any, str]]:
    """This flattens cattrs's tree of errors into (path, text)."""
    import cattrs.errors

    if isinstance(
        error,
        cattrs.errors.ClassValidationError | cattrs.errors.IterableValidationError,
    ):
        located, others = error.group_exceptions()
        for inner, note in located:
            step = getattr(note, "name", None)
            yield from _walk(inner, (*path, note.index if step is None else step))
        for inner in others:
            yield from _walk(inner, path)
    elif isinstance(error, cattrs.errors.ForbiddenExtraKeysError):
        known = _field_names(error.cl)
        for key in sorted(error.extra_fields):
            close = difflib.get_close_matches(key, known, 1, 0.6)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            yield (*path, key), "unknown key" + (guess or _listed(known))
    elif isinstance(error, KeyError):
        name = error.args[0]
        yield path if path[-1:] == (name,) else (*path, name), "missing, and required"
    else:
        yield path, str(error) or type(error).__name__


def _field_names(kind: Any) -> list[str]:
    fields = getattr(kind, "__attrs_attrs__", None)
    if fields is not None:
        return [field.name for field in fields if field.init]
    return list(getattr(kind, "__dataclass_fields__", ()))


def _listed(known: list[str]) -> str:
    return f"; the keys are {', '.join(known)}" if known else "; there are no keys"


def _render_path(where: str, path: tuple[Any, ...]) -> str:
    text = where
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text
