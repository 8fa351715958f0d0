"""The verb `completion`: a script for bash, zsh or fish.

Verbs and flags are written into the script; only the names of daemons are asked for
at the TAB key, from `duende ps`, which is quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ("SHELLS", "render_completion")

SHELLS = ("bash", "zsh", "fish")

NAMING_VERBS = (
    "up ps status start stop restart reload pause resume signal logs events wait"
)
"""The verbs that take names of daemons."""

_BASH = """\
# duende completion for bash; load it with: source <(duende completion bash)
_duende_names() {{ duende ps 2>/dev/null | awk 'NR > 1 {{ print $1 }}'; }}
_duende() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" verb="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case " {verbs} " in *" $word "*) verb="$word"; break ;; esac
    done
    if [[ $current == -* ]]; then
        local flags="{common}"
        case "$verb" in
{cases}
        esac
        COMPREPLY=($(compgen -W "$flags" -- "$current"))
    elif [[ -z $verb ]]; then
        COMPREPLY=($(compgen -W "{verbs}" -- "$current"))
    else
        case "$verb" in
            completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$current")) ;;
            check) COMPREPLY=($(compgen -f -- "$current")) ;;
            {naming})
                COMPREPLY=($(compgen -W "$(_duende_names)" -- "$current")) ;;
        esac
    fi
}}
complete -F _duende duende
"""

_ZSH = """\
#compdef duende
# duende completion for zsh; load it with: source <(duende completion zsh)
_duende() {{
    local verb="" word
    local -a names
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case " {verbs} " in *" $word "*) verb="$word"; break ;; esac
    done
    if [[ $words[CURRENT] == -* ]]; then
        local flags="{common}"
        case "$verb" in
{cases}
        esac
        compadd -- ${{=flags}}
    elif [[ -z $verb ]]; then
        compadd -- {verbs}
    else
        case "$verb" in
            completion) compadd -- bash zsh fish ;;
            check) _files ;;
            {naming})
                names=(${{(f)"$(duende ps 2>/dev/null | awk 'NR > 1 {{ print $1 }}')"}})
                compadd -- $names ;;
        esac
    fi
}}
compdef _duende duende
"""

_FISH_NAMES = (
    "complete -c duende -f -n '__fish_seen_subcommand_from {naming}' "
    "-a \"(duende ps 2>/dev/null | awk 'NR > 1 {{ print \\$1 }}')\""
)


def render_completion(
    shell: str,
    verbs: Mapping[str, str],
    flags: Mapping[str, Sequence[str]],
    common: Sequence[str],
) -> str:
    """This writes the script.

    Args:
        shell: bash, zsh or fish.
        verbs: Each verb with its one line of help.
        flags: The flags of each verb.
        common: The flags that stand before the verb.
    """
    if shell == "fish":
        return _render_fish(verbs, flags, common)
    cases = "\n".join(
        f'            {verb}) flags="{" ".join(words)}" ;;'
        for verb, words in flags.items()
    )
    template = _BASH if shell == "bash" else _ZSH
    return template.format(
        verbs=" ".join(verbs),
        common=" ".join(common),
        cases=cases,
        naming=NAMING_VERBS.replace(" ", "|"),
    )


def _render_fish(
    verbs: Mapping[str, str],
    flags: Mapping[str, Sequence[str]],
    common: Sequence[str],
) -> str:
    no_verb = f"not __fish_seen_subcommand_from {' '.join(verbs)}"
    lines = [
        "# duende completion for fish; load it with: duende completion fish | source"
    ]
    for verb, help_ in verbs.items():
        text = help_.replace("'", "\\'")
        lines.append(f"complete -c duende -f -n '{no_verb}' -a {verb} -d '{text}'")
    for flag in common:
        lines.append(f"complete -c duende -n '{no_verb}' {_fish_flag(flag)}")
    for verb, words in flags.items():
        seen = f"__fish_seen_subcommand_from {verb}"
        lines += [
            f"complete -c duende -n '{seen}' {_fish_flag(flag)}" for flag in words
        ]
    lines.append(_FISH_NAMES.format(naming=NAMING_VERBS))
    lines.append(
        "complete -c duende -f -n '__fish_seen_subcommand_from completion' "
        "-a 'bash zsh fish'"
    )
    return "\n".join(lines) + "\n"


def _fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
