# Completion of speil in bash: put `source <(speil completion bash)` into ~/.bashrc, or this file into
# /usr/share/bash-completion/completions/speil.
_speil() {
    local program=${1/#\~/$HOME} line=${COMP_LINE:0:COMP_POINT} current output directive lead="" word
    local -a words lines
    read -r -a words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[${#words[@]} - 1]}
    COMPREPLY=()
    output=$(command "$program" __complete "${words[@]:1}" 2>/dev/null) || return
    mapfile -t lines <<<"$output"
    directive=${lines[${#lines[@]} - 1]}
    unset "lines[${#lines[@]}-1]"
    # readline completes what stands behind the last of these
    [[ $COMP_WORDBREAKS == *=* && $current == *=* ]] && lead=${current%"${current##*=}"}
    [[ $COMP_WORDBREAKS == *:* && $current == *:* ]] && lead=${current%"${current##*:}"}
    for word in "${lines[@]}"; do
        word=${word%%$'\t'*}
        COMPREPLY+=("${word#"$lead"}")
    done
    case $directive in
    :0) ((${#COMPREPLY[@]})) || compopt -o default ;;
    :16) compopt -o dirnames ;;
    esac
}
complete -F _speil speil
