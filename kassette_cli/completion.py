"""Scripts that complete the command in bash, zsh and fish; nothing of a shell is run here.

Run ids are completed from the storage that the line, or KASSETTE_STORAGE, names.
"""

from __future__ import annotations

from kassette_cli import manual

SHELLS = ("bash", "zsh", "fish")
COMMON = ("--storage", "--json", "--help")
OPTIONS: dict[str, tuple[str, ...]] = {
    "list": ("--limit", "--status", "--older-than", "--ids"),
    "status": (),
    "dump": ("--offset", "--follow", "--full"),
    "timeline": (),
    "steps": (),
    "diff": (),
    "fork": ("--from-offset", "--from-step", "--new-run-id"),
    "check": (),
    "completion": (),
}
"""What each verb takes beside ``COMMON``."""
OF_RUNS = ("status", "dump", "timeline", "steps", "diff", "fork")
TAKING_VALUES = (
    "--storage",
    "--limit",
    "--status",
    "--older-than",
    "--offset",
    "--from-offset",
    "--from-step",
    "--new-run-id",
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
        --status) offered="%(statuses)s" ;;
        %(taking)s) ;;
        *) case "$verb:$current" in
%(cases)s
            :-*) offered="%(common)s --version" ;;
            :*) offered="%(verbs)s" ;;
            completion:*) offered="%(shells)s" ;;
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
    _arguments -C '--storage[the storage]:URL:' '--json[print JSON on a terminal, too]' \\
        '--version[print the version]' '(- *)--help[explain]' \\
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
complete -c kassette -l json -d 'print JSON on a terminal, too'
complete -c kassette -l help -d 'explain'
complete -c kassette -n __fish_use_subcommand -l version -d 'print the version'
%(lines)s
"""


def script(shell: str) -> str:
    """Give the script for ``shell``, one of ``SHELLS``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _bash() -> str:
    return _BASH % {
        "taking": "|".join(TAKING_VALUES),
        "statuses": " ".join(manual.STATUSES),
        "cases": "\n".join(
            f'            {verb}:-*) offered="{" ".join((*own, *COMMON))}" ;;'
            for verb, own in OPTIONS.items()
        ),
        "common": " ".join(COMMON),
        "verbs": " ".join(OPTIONS),
        "shells": " ".join(SHELLS),
        "of_runs": "|".join(f"{verb}:*" for verb in OF_RUNS),
    }


def _zsh() -> str:
    return _ZSH % {
        "described": "\n".join(f"        {_quoted(f'{v}:{manual.VERBS[v][0]}')}" for v in OPTIONS),
        "cases": "\n".join(
            f"            {verb}) _arguments {' '.join(_zsh_options(verb, own))} ;;"
            for verb, own in OPTIONS.items()
        ),
    }


def _zsh_options(verb: str, own: tuple[str, ...]) -> list[str]:
    values = {"--status": f":status:_values -s , status {' '.join(manual.STATUSES)}"}
    options = [
        _quoted(option + (values.get(option, ":value:") if option in TAKING_VALUES else ""))
        for option in (*own, *COMMON)
    ]
    if verb in OF_RUNS:
        options.append(_quoted("*:run:_kassette_runs"))
    elif verb == "completion":
        options.append(_quoted(f":shell:({' '.join(SHELLS)})"))
    return options


def _fish() -> str:
    lines: list[str] = []
    for verb, own in OPTIONS.items():
        seen = f"-n '__fish_seen_subcommand_from {verb}'"
        lines.append(
            f"complete -c kassette -n __fish_use_subcommand -a {verb} "
            f"-d {_quoted(manual.VERBS[verb][0])}"
        )
        lines.extend(
            f"complete -c kassette {seen} -l {option.removeprefix('--')}"
            + (" -x" if option in TAKING_VALUES else "")
            + (f" -a '{' '.join(manual.STATUSES)}'" if option == "--status" else "")
            for option in own
        )
        if verb in OF_RUNS:
            lines.append(f"complete -c kassette {seen} -a '(__kassette_runs)'")
        elif verb == "completion":
            lines.append(f"complete -c kassette {seen} -a '{' '.join(SHELLS)}'")
    return _FISH % {"lines": "\n".join(lines)}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
