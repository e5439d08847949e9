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
        'list:give the id of every run'
        'status:tell what a run is doing, from its journal alone'
        'dump:give the entries of a run'\''s journal'
        'timeline:tell who took how long: sessions, steps, events, and the gaps between'
        'steps:give every point where a run can be forked, with the command to do it'
        'diff:tell where two runs part, by structure and by result'
        'fork:begin a new run with the first entries of another'
        'check:prove that an object store keeps what journals rely on'
        'completion:print a script that completes commands in a shell'
    )
    _arguments -C '--storage[the storage]:URL:' '--json[print JSON on a terminal, too]' \
        '--version[print the version]' '(- *)--help[explain]' \
        '1: :->verb' '*:: :->rest'
    case $state in
        verb) _describe verb verbs ;;
        rest) case $line[1] in
            list) _arguments '--limit:value:' '--status:status:_values -s , status completed failed cancelled suspended unsettled unreadable' '--older-than:value:' '--ids' '--storage:value:' '--json' '--help' ;;
            status) _arguments '--storage:value:' '--json' '--help' '*:run:_kassette_runs' ;;
            dump) _arguments '--offset:value:' '--follow' '--full' '--storage:value:' '--json' '--help' '*:run:_kassette_runs' ;;
            timeline) _arguments '--storage:value:' '--json' '--help' '*:run:_kassette_runs' ;;
            steps) _arguments '--storage:value:' '--json' '--help' '*:run:_kassette_runs' ;;
            diff) _arguments '--storage:value:' '--json' '--help' '*:run:_kassette_runs' ;;
            fork) _arguments '--from-offset:value:' '--from-step:value:' '--new-run-id:value:' '--storage:value:' '--json' '--help' '*:run:_kassette_runs' ;;
            check) _arguments '--storage:value:' '--json' '--help' ;;
            completion) _arguments '--storage:value:' '--json' '--help' ':shell:(bash zsh fish)' ;;
        esac ;;
    esac
}
compdef _kassette kassette
