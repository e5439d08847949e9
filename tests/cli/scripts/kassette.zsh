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
        'list:list the id of every run'
        'debug:explain what happened to a run, why it stopped, and what to do next'
        'pending:list every open wait of every run, with the call that answers it'
        'status:show what a run is doing, from its journal alone'
        'dump:print the entries of a run'\''s journal'
        'timeline:show how long each session, step and wait took'
        'steps:list every point where a run can be forked, with the command to do it'
        'diff:show where two runs diverge, by structure and by result'
        'fork:create a new run from the first entries of another'
        'check:verify that an object store honours conditional writes'
        'completion:print a completion script for a shell'
    )
    _arguments -C '--storage[the storage]:URL:' '--json[print JSON even on a terminal]' \
        '--version[print the version]' '(- *)--help[show help]' \
        '1: :->verb' '*:: :->rest'
    case $state in
        verb) _describe verb verbs ;;
        rest) case $line[1] in
            list) _arguments '--limit:value:' '--status:status:_values -s , status completed failed cancelled suspended unsettled unreadable' '--older-than:value:' '--ids' '--storage:value:' '--json' '--help' ;;
            debug) _arguments '--storage:value:' '--json' '--help' '*:run:_kassette_runs' ;;
            pending) _arguments '--storage:value:' '--json' '--help' ;;
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
