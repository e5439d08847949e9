"""``kassette completion``: completion scripts for bash, zsh and fish.

The scripts are generated from the parsers, so they always match; run ids come from the storage
named on the command line or by KASSETTE_STORAGE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kassette_cli.parser import RunId, verb_parser
from kassette_cli.table import Verb, load_all

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

PLACE = 90
SUMMARY = "print a completion script for a shell"
DESCRIPTION = (
    '  eval "$(kassette completion bash)"            in ~/.bashrc\n'
    '  eval "$(kassette completion zsh)"             in ~/.zshrc, after compinit\n'
    "  kassette completion fish | source             in ~/.config/fish/config.fish"
)
SHELLS = ("bash", "zsh", "fish")
COMMON = ("--storage", "--json", "--help")


class Taken(NamedTuple):
    """The arguments of a verb: options besides ``COMMON``, and run ids or fixed words."""

    verb: Verb
    options: Sequence[str]
    with_value: Sequence[str]
    takes_runs: bool
    word: str
    words: Sequence[str]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=SHELLS, help="which shell")


def lines(_: None, arguments: Namespace) -> Iterable[bytes]:
    """Return the script for the shell."""
    return [script(arguments.shell).encode()]


def script(shell: str) -> str:
    """Return the script for ``shell``, one of ``SHELLS``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](
        [taken_by(each) for each in load_all()]
    )


def taken_by(verb: Verb) -> Taken:
    """Return the arguments of a verb."""
    actions = verb_parser(verb)._actions  # pyright: ignore[reportPrivateUsage] - argparse has no other way
    options = [each for each in actions if each.option_strings]
    alone = [each for each in actions if not each.option_strings]
    named = [(each.option_strings[-1], each.nargs != 0) for each in options]
    return Taken(
        verb=verb,
        options=[name for name, _ in named if name not in COMMON],
        with_value=[name for name, takes in named if takes],
        takes_runs=any(isinstance(each, RunId) for each in alone),
        word=" ".join(each.dest for each in alone if each.choices),
        words=[str(word) for each in alone for word in each.choices or ()],
    )


_BASH = """\
_kassette() {
    local line="${COMP_LINE:0:COMP_POINT}" storage="${KASSETTE_STORAGE-}" verb= before= at
    local -a words
    read -ra words <<< "$line"
    if [[ $line == *[[:space:]] ]]; then words+=(''); fi
    local current="${words[-1]}" previous="${words[-2]-}"
    for ((at = 1; at < ${#words[@]} - 1; at++)); do
        case "${words[at]}" in
            --storage=*) storage="${words[at]#*=}" ;;
            -*) ;;
            *) case "$before" in
                --storage) storage="${words[at]}" ;;
                %(taking)s) ;;
                *) verb="${verb:-${words[at]}}" ;;
            esac ;;
        esac
        before="${words[at]}"
    done
    local offered=
    case "$previous" in
%(behind)s
        %(taking)s) ;;
        *) case "$verb:$current" in
%(cases)s
            :-*) offered="%(common)s --version" ;;
            :*) offered="%(verbs)s" ;;
%(words)s
            %(of_runs)s)
                if [[ -n $storage ]]; then
                    offered="$(kassette --storage "$storage" \\
                        list --ids --limit 1000 2>/dev/null)"
                fi ;;
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$offered" -- "$current"))
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%%:*}":}")
    fi
}
complete -F _kassette kassette
"""

_ZSH = """\
_kassette_runs() {
    local storage="${opt_args[--storage]:-$KASSETTE_STORAGE}"
    [[ -n $storage ]] || return 1
    local -a runs
    runs=(${(f)"$(kassette --storage "$storage" list --ids --limit 1000 2>/dev/null)"})
    compadd -a runs
}
_kassette() {
    local context state line
    typeset -A opt_args
    local -a verbs
    verbs=(
%(described)s
    )
    _arguments -C '--storage[the storage]:URL:' '--json[print JSON even on a terminal]' \\
        '--version[print the version]' '(- *)--help[show help]' \\
        '1: :->verb' '*:: :->rest'
    case $state in
        verb) _describe verb verbs ;;
        rest) case $line[1] in
%(cases)s
        esac ;;
    esac
}
compdef _kassette kassette
"""

_FISH = """\
function __kassette_runs
    set -l words (commandline -opc)
    set -l storage $KASSETTE_STORAGE
    set -l at (contains -i -- --storage $words)
    and set storage $words[(math $at + 1)]
    test -n "$storage"
    and kassette --storage $storage list --ids --limit 1000 2>/dev/null
end
complete -c kassette -f
complete -c kassette -l storage -x -d 'file:<path> or s3://<bucket>[/<prefix>]'
complete -c kassette -l json -d 'print JSON even on a terminal'
complete -c kassette -l help -d 'show help'
complete -c kassette -n __fish_use_subcommand -l version -d 'print the version'
%(lines)s
"""


def _offered(verbs: Sequence[Taken]) -> Mapping[str, Sequence[str]]:
    """Return the completions for each option whose value is one of some words."""
    return {option: words for each in verbs for option, words in each.verb.offered.items()}


def _with_value(verbs: Sequence[Taken]) -> list[str]:
    return list(dict.fromkeys(option for each in verbs for option in each.with_value))


def _bash(verbs: Sequence[Taken]) -> str:
    return _BASH % {
        "taking": "|".join(_with_value(verbs)),
        "behind": "\n".join(
            f'        {option}) offered="{" ".join(words)}" ;;'
            for option, words in _offered(verbs).items()
        ),
        "cases": "\n".join(
            f'            {each.verb.name}:-*) offered="{" ".join((*each.options, *COMMON))}" ;;'
            for each in verbs
        ),
        "common": " ".join(COMMON),
        "verbs": " ".join(each.verb.name for each in verbs),
        "words": "\n".join(
            f'            {each.verb.name}:*) offered="{" ".join(each.words)}" ;;'
            for each in verbs
            if each.words
        ),
        "of_runs": "|".join(f"{each.verb.name}:*" for each in verbs if each.takes_runs),
    }


def _zsh(verbs: Sequence[Taken]) -> str:
    return _ZSH % {
        "described": "\n".join(
            f"        {_quoted(f'{each.verb.name}:{each.verb.summary}')}" for each in verbs
        ),
        "cases": "\n".join(
            f"            {each.verb.name}) _arguments {' '.join(_zsh_options(each))} ;;"
            for each in verbs
        ),
    }


def _zsh_options(taken: Taken) -> list[str]:
    values = {
        option: f":{name}:_values -s , {name} {' '.join(words)}"
        for option, words in taken.verb.offered.items()
        for name in [option.removeprefix("--")]
    }
    options = [
        _quoted(option + (values.get(option, ":value:") if option in taken.with_value else ""))
        for option in (*taken.options, *COMMON)
    ]
    if taken.takes_runs:
        options.append(_quoted("*:run:_kassette_runs"))
    elif taken.words:
        options.append(_quoted(f":{taken.word}:({' '.join(taken.words)})"))
    return options


def _fish(verbs: Sequence[Taken]) -> str:
    lines: list[str] = []
    for each in verbs:
        name, offered = each.verb.name, each.verb.offered
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        lines.append(
            f"complete -c kassette -n __fish_use_subcommand -a {name} "
            f"-d {_quoted(each.verb.summary)}"
        )
        lines.extend(
            f"complete -c kassette {seen} -l {option.removeprefix('--')}"
            + (" -x" if option in each.with_value else "")
            + (f" -a '{' '.join(offered[option])}'" if option in offered else "")
            for option in each.options
        )
        if each.takes_runs:
            lines.append(f"complete -c kassette {seen} -a '(__kassette_runs)'")
        elif each.words:
            lines.append(f"complete -c kassette {seen} -a '{' '.join(each.words)}'")
    return _FISH % {"lines": "\n".join(lines)}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
