//! LOLWUT: a small drawing, another one each time.

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, Scope, args};

use crate::commands::Context;
use crate::registry::ServerCommand;
use crate::tasks::REDIS_VERSION;

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    name: "lolwut",
    summary: "Shows a drawing and the version.",
    since: "5.0.0",
    group: Group::Server,
    complexity: "O(1)",
    arity: -1,
    flags: Flags::READONLY.union(Flags::FAST),
    categories: Categories::empty(),
    keys: &[],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lolwut,
}];

/// `LOLWUT [VERSION version] [parameter ...]`
fn lolwut(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let mut words = &context.args[1..];
    let mut version = 0;
    if let [word, number, rest @ ..] = words
        && args::is(word, "VERSION")
    {
        version = args::integer(number)?;
        words = rest;
    }
    let numbers: Result<Vec<i64>, _> = words.iter().map(|word| args::integer(word)).collect();
    let numbers = numbers?;
    let size = |index: usize, usual: usize, most: usize| {
        let wanted = numbers.get(index).map(|number| usize::try_from(*number).unwrap_or(1));
        wanted.unwrap_or(usual).clamp(1, most)
    };
    let random = &mut context.worker.random;
    let mut art = match version {
        5 => stones(size(0, 66, 1000), size(1, 8, 200), random),
        6 => skyline(size(0, 80, 1000), size(1, 20, 200), random),
        _ => String::new(),
    };
    if !art.is_empty() {
        art.push('\n');
    }
    art.push_str("Redis ver. ");
    art.push_str(REDIS_VERSION);
    art.push('\n');
    context.reply.verbatim(b"txt", art.as_bytes());
    Ok(Effect::None)
}

/// A wall of stones, as they would be set around a seal.
fn stones(columns: usize, rows: usize, random: &mut fastrand::Rng) -> String {
    const STONES: [&str; 4] = ["(##)", "(oo)", "(..)", "(::)"];

    let mut art = String::new();
    for row in 0..rows {
        let mut line = " ".repeat(row % 2 * 2);
        while line.len() + 4 <= columns {
            line.push_str(STONES[random.usize(..STONES.len())]);
        }
        art.push_str(line.trim_end());
        art.push('\n');
    }
    art
}

/// Towers of different heights, some windows lit.
fn skyline(columns: usize, rows: usize, random: &mut fastrand::Rng) -> String {
    let mut heights = Vec::with_capacity(columns);
    while heights.len() < columns {
        let height = random.usize(..rows);
        heights.extend(std::iter::repeat_n(height, random.usize(3..10)));
        heights.push(0);
    }
    heights.truncate(columns);
    let mut art = String::new();
    for row in (0..rows).rev() {
        let line: String = heights
            .iter()
            .map(|height| match () {
                () if *height <= row => ' ',
                () if random.u8(..4) == 0 => '.',
                () => '#',
            })
            .collect();
        art.push_str(line.trim_end());
        art.push('\n');
    }
    art
}
