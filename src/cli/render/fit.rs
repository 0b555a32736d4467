//! Text in a number of columns. Rows consist of references, digests, sizes and words, which are
//! ASCII, so a character takes one column.

/// Returns the columns that `text` takes.
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// Returns `text` in at most `columns`, without its end if it is longer.
pub fn end(text: &str, columns: usize) -> String {
    shortened(text, columns, columns.saturating_sub(1))
}

/// Returns the name of an image in at most `columns`. If it is longer, it is shown without the
/// registry and the path above it, and then without its middle: the end is the tag.
pub fn name(name: &str, columns: usize) -> String {
    let last = name.rfind('/').map_or(name, |slash| &name[slash + 1..]);
    match () {
        () if width(name) <= columns => name.to_owned(),
        () if last.len() < name.len() && width(last) + 2 <= columns => format!("…/{last}"),
        () => shortened(last, columns, columns.saturating_sub(1) / 2),
    }
}

/// Returns `text` in at most `columns`. If it is longer, `head` columns of its beginning stay.
fn shortened(text: &str, columns: usize, head: usize) -> String {
    let length = width(text);
    if length <= columns {
        return text.to_owned();
    }
    if columns == 0 {
        return String::new();
    }
    let tail = columns - 1 - head;
    let chars = || text.chars();
    chars().take(head).chain(['…']).chain(chars().skip(length - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shortened_to_its_columns() {
        for (columns, from_end, from_middle) in [
            (8, "registry", "registry"),
            (7, "regist…", "reg…try"),
            (6, "regis…", "re…try"),
            (2, "r…", "…y"),
            (1, "…", "…"),
            (0, "", ""),
        ] {
            assert_eq!(end("registry", columns), from_end);
            assert_eq!(name("registry", columns), from_middle);
        }
    }

    #[test]
    fn name_keeps_its_last_component() {
        for (columns, short) in [
            (29, "localhost:5000/team/image:tag"),
            (28, "…/image:tag"),
            (11, "…/image:tag"),
            (10, "image:tag"),
            (8, "ima…:tag"),
        ] {
            assert_eq!(name("localhost:5000/team/image:tag", columns), short);
        }
    }
}
