# Completion of rpull for bash. `rpull completions bash` prints this file.

_rpull() {
    local line=${COMP_LINE:0:COMP_POINT} current prefix="" mark start value
    local -a words
    # bash ends words at colons, too. References contain colons, so the line is split at spaces only.
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[${#words[@]} - 1]}
    # bash replaces only what follows the last of these characters.
    for mark in : = @; do
        if [[ $COMP_WORDBREAKS == *"$mark"* && $current == *"$mark"* ]]; then
            start=${current%"${current##*"$mark"}"}
            ((${#start} > ${#prefix})) && prefix=$start
        fi
    done
    COMPREPLY=()
    # Each line is a candidate and its description.
    while read -r value _; do
        case $value in
        :directories)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "${current#"$prefix"}")
            ;;
        :files)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "${current#"$prefix"}")
            ;;
        *) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done < <("$1" __complete "${words[@]:1}" 2>/dev/null)
}

complete -F _rpull rpull
