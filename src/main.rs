//! The `rpull` command.

fn main() {}
