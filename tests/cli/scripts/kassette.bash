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
                --storage|--limit|--status|--older-than|--offset|--from-offset|--from-step|--new-run-id) ;;
                *) verb="${verb:-${words[at]}}" ;;
            esac ;;
        esac
        before="${words[at]}"
    done
    local offered=
    case "$previous" in
        --status) offered="completed failed cancelled suspended unsettled unreadable" ;;
        --storage|--limit|--status|--older-than|--offset|--from-offset|--from-step|--new-run-id) ;;
        *) case "$verb:$current" in
            list:-*) offered="--limit --status --older-than --ids --storage --json --help" ;;
            debug:-*) offered="--storage --json --help" ;;
            pending:-*) offered="--storage --json --help" ;;
            status:-*) offered="--storage --json --help" ;;
            dump:-*) offered="--offset --follow --full --storage --json --help" ;;
            timeline:-*) offered="--storage --json --help" ;;
            steps:-*) offered="--storage --json --help" ;;
            diff:-*) offered="--storage --json --help" ;;
            fork:-*) offered="--from-offset --from-step --new-run-id --storage --json --help" ;;
            check:-*) offered="--storage --json --help" ;;
            completion:-*) offered="--storage --json --help" ;;
            :-*) offered="--storage --json --help --version" ;;
            :*) offered="list debug pending status dump timeline steps diff fork check completion" ;;
            completion:*) offered="bash zsh fish" ;;
            debug:*|status:*|dump:*|timeline:*|steps:*|diff:*|fork:*)
                if [[ -n $storage ]]; then
                    offered="$(kassette --storage "$storage" \
                        list --ids --limit 1000 2>/dev/null)"
                fi ;;
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$offered" -- "$current"))
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%:*}":}")
    fi
}
complete -F _kassette kassette
