# Completion of speil in fish: put `speil completion fish | source` into ~/.config/fish/config.fish, or this file into
# ~/.config/fish/completions/speil.fish.
function __speil_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (command $before[1] __complete $before[2..-1] "$current" 2>/dev/null)
    or return
    set -l directive $lines[-1]
    set -e lines[-1]
    if test (count $lines) -gt 0
        printf '%s\n' $lines
        return
    end
    # the value of --flag=value is a file too
    set -l lead (string match -r '^-[^=]*=' -- $current)
    set -l typed (string replace -r '^-[^=]*=' '' -- $current)
    switch $directive
        case :0
            printf "$lead%s\n" (__fish_complete_path "$typed")
        case :16
            printf "$lead%s\n" (__fish_complete_directories "$typed")
    end
end
complete -c speil -f -a '(__speil_complete)'
