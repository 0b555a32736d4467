# Completion of rpull for fish. `rpull completions fish` prints this file.

function __rpull_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    # Each line is a candidate and its description.
    for line in ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
        switch $line
            case :directories
                __fish_complete_directories "$current"
            case :files
                __fish_complete_path "$current"
            case '*'
                string replace ' ' \t -- $line
        end
    end
end

complete -c rpull -f -a '(__rpull_complete)'
