//! The ranges of IDs that a user may use in user namespaces (subuid(5), subgid(5)).

use std::fs;

/// Ranges at most: the kernel accepts 340 in a map, one of which is the user's own ID.
const MAX_RANGES: usize = 339;

/// A range of IDs: the first, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u32,
    count: u32,
}

/// Returns the ranges that a file like /etc/subuid has for a user; none if it does not exist.
pub fn of_user(file: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    fs::read(file).map(|text| parse(&String::from_utf8_lossy(&text), uid, name)).unwrap_or_default()
}

/// One line per range: `NAME|UID:FIRST:COUNT`.
fn parse(text: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_own = owner == uid || Some(owner) == name;
        (is_own && count > 0).then_some(Range { first, count })
    };
    text.lines().filter_map(range).take(MAX_RANGES).collect()
}

/// Returns the arguments of newuidmap and newgidmap: root is `own`, and the ranges follow from 1.
pub fn arguments(own: u32, ranges: &[Range]) -> String {
    let mut text = format!("0 {own} 1");
    let mut next = 1u32;
    for range in ranges {
        // The last ID of 32 bits is not an ID.
        let count = range.count.min(u32::MAX - next);
        if count > 0 {
            text += &format!(" {next} {} {count}", range.first);
            next += count;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\nroot:1:2\nann:100000:65536\n1000:300000:10\nann:x:1\nann:7\n\
                        annie:5:5\nann:9:0\nbob:200000:65536\n";

    #[test]
    fn ranges_are_those_of_the_name_and_of_the_id() {
        let own = parse(FILE, 1000, Some("ann"));
        let expected =
            [Range { first: 100_000, count: 65_536 }, Range { first: 300_000, count: 10 }];
        assert_eq!(own, expected);
        assert_eq!(parse(FILE, 1000, None), expected[1..]);
        assert_eq!(parse(FILE, 1001, Some("eve")), []);
    }

    #[test]
    fn arguments_map_root_to_the_user_and_the_ranges_from_one() {
        assert_eq!(arguments(1000, &[]), "0 1000 1");
        let ranges = parse(FILE, 1000, Some("ann"));
        assert_eq!(arguments(1000, &ranges), "0 1000 1 1 100000 65536 65537 300000 10");
        let all = Range { first: 1, count: u32::MAX };
        assert_eq!(arguments(5, &[all, all]), "0 5 1 1 1 4294967294");
    }
}
