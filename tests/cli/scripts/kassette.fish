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
complete -c kassette -n __fish_use_subcommand -a list -d 'list the id of every run'
complete -c kassette -n '__fish_seen_subcommand_from list' -l limit -x
complete -c kassette -n '__fish_seen_subcommand_from list' -l status -x -a 'completed failed cancelled suspended unsettled unreadable'
complete -c kassette -n '__fish_seen_subcommand_from list' -l older-than -x
complete -c kassette -n '__fish_seen_subcommand_from list' -l ids
complete -c kassette -n __fish_use_subcommand -a debug -d 'explain what happened to a run, why it stopped, and what to do next'
complete -c kassette -n '__fish_seen_subcommand_from debug' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a pending -d 'list every open wait of every run, with the call that answers it'
complete -c kassette -n __fish_use_subcommand -a status -d 'show what a run is doing, from its journal alone'
complete -c kassette -n '__fish_seen_subcommand_from status' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a dump -d 'print the entries of a run'\''s journal'
complete -c kassette -n '__fish_seen_subcommand_from dump' -l offset -x
complete -c kassette -n '__fish_seen_subcommand_from dump' -l follow
complete -c kassette -n '__fish_seen_subcommand_from dump' -l full
complete -c kassette -n '__fish_seen_subcommand_from dump' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a timeline -d 'show how long each session, step and wait took'
complete -c kassette -n '__fish_seen_subcommand_from timeline' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a steps -d 'list every point where a run can be forked, with the command to do it'
complete -c kassette -n '__fish_seen_subcommand_from steps' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a diff -d 'show where two runs diverge, by structure and by result'
complete -c kassette -n '__fish_seen_subcommand_from diff' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a fork -d 'create a new run from the first entries of another'
complete -c kassette -n '__fish_seen_subcommand_from fork' -l from-offset -x
complete -c kassette -n '__fish_seen_subcommand_from fork' -l from-step -x
complete -c kassette -n '__fish_seen_subcommand_from fork' -l new-run-id -x
complete -c kassette -n '__fish_seen_subcommand_from fork' -a '(__kassette_runs)'
complete -c kassette -n __fish_use_subcommand -a check -d 'verify that an object store honours conditional writes'
complete -c kassette -n __fish_use_subcommand -a completion -d 'print a completion script for a shell'
complete -c kassette -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
