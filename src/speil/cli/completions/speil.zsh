#compdef speil
# Completion of speil in zsh: put `source <(speil completion zsh)` into ~/.zshrc behind `compinit`, or this file as
# _speil into a folder of $fpath.
_speil() {
    local output line directive
    local -a lines candidates
    output=$(command ${~words[1]} __complete "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null) || return 1
    lines=("${(@f)output}")
    directive=${lines[-1]}
    for line in "${(@)lines[1,-2]}"; do
        # _describe splits at the first colon that is not quoted
        candidates+=("${${line%%$'\t'*}//:/\\:}${${(M)line:#*$'\t'*}:+:${line#*$'\t'}}")
    done
    if ((${#candidates})); then
        _describe -t speil speil candidates
        return
    fi
    case $directive in
    :0) compset -P '*='; _files ;;
    :16) compset -P '*='; _files -/ ;;
    *) return 1 ;;
    esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _speil "$@"
else
    compdef _speil speil
fi
