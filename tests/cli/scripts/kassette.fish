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
complete -c kassette -n __fish_use_subcommand -a list -d 'give the id of every run'
complete -c kassette -n '__fish_seen_subcommand_from list' -l limit -x
complete -c kassette -n '__fish_seen_subcommand_from list' -l status -x -a 'completed failed cancelled suspended unsettled unreadable'
complete -c kassette -n '__fish_seen_subcommand_from list' -l older-than -x
complete -c kassette -n '__fish_seen_subcommand_from list' -l ids
complete -c kassette -n __fish_use_subcommand -a status -d 'tell what a run is doing, from its journal alone'
complete -c kassette -n '__fish_seen_subcommand_from status' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a dump -d 'give the entries of a run'\''s journal'
complete -c kassette -n '__fish_seen_subcommand_from dump' -l offset -x
complete -c kassette -n '__fish_seen_subcommand_from dump' -l follow
complete -c kassette -n '__fish_seen_subcommand_from dump' -l full
complete -c kassette -n '__fish_seen_subcommand_from dump' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a timeline -d 'tell who took how long: sessions, steps, events, and the gaps between'
complete -c kassette -n '__fish_seen_subcommand_from timeline' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a steps -d 'give every point where a run can be forked, with the command to do it'
complete -c kassette -n '__fish_seen_subcommand_from steps' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a diff -d 'tell where two runs part, by structure and by result'
complete -c kassette -n '__fish_seen_subcommand_from diff' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a fork -d 'begin a new run with the first entries of another'
complete -c kassette -n '__fish_seen_subcommand_from fork' -l from-offset -x
complete -c kassette -n '__fish_seen_subcommand_from fork' -l from-step -x
complete -c kassette -n '__fish_seen_subcommand_from fork' -l new-run-id -x
complete -c kassette -n '__fish_seen_subcommand_from fork' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a check -d 'prove that an object store keeps what journals rely on'
complete -c kassette -n __fish_use_subcommand -a completion -d 'print a script that completes commands in a shell'
complete -c kassette -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
