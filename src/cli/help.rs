//! The shape of help texts.

/// Returns the parser's help with the names of values as in this project's help texts and documentation:
/// `-j, --jobs N`, not `-j, --jobs <N>`. Descriptions stay in their column.
pub fn plain(help: &str) -> String {
    help.split('\n').map(plain_line).collect::<Vec<_>>().join("\n")
}

fn plain_line(line: &str) -> String {
    let is_usage = line.starts_with("Usage:") || line.starts_with("       rpull ");
    let is_entry =
        line.starts_with(' ') && matches!(line.trim_start().chars().next(), Some('-' | '<'));
    if !is_usage && !is_entry {
        return line.to_owned();
    }
    // The description follows after two spaces, where the entry has one.
    let indent = line.len() - line.trim_start().len();
    let end = line[indent..].find("  ").map_or(line.len(), |at| indent + at);
    let (entry, description) = line.split_at(end);
    let plain: String = entry.chars().filter(|c| !matches!(c, '<' | '>')).collect();
    match description {
        "" => plain,
        _ => format!("{plain}{}{description}", " ".repeat(entry.len() - plain.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_values_have_no_brackets_and_columns_stay() {
        let help = "Pull\n\nUsage: rpull pull [OPTIONS] <IMAGE>...\n\n  <IMAGE>...  Name <it>\n\n  \
                    -j, --jobs <N>         Up to N <layers>\n      --root <DIR>\n          Use <DIR>";
        let plain_help = "Pull\n\nUsage: rpull pull [OPTIONS] IMAGE...\n\n  IMAGE...    Name <it>\n\n  \
             -j, --jobs N           Up to N <layers>\n      --root DIR\n          Use <DIR>";
        assert_eq!(plain(help), plain_help);
    }
}
