//! TIME and LOLWUT: the clock, and a drawing.

use std::fmt::Write as _;

use carnelian_commands::{CommandError, Effect, Flags, args};

use crate::commands::{Context, command};
use crate::registry::ServerCommand;
use crate::tasks::{CARNELIAN_VERSION, REDIS_VERSION};

pub const TABLE: &[ServerCommand] = &[
    command(
        "lolwut",
        "Draws something, and tells the version.",
        "5.0.0",
        -1,
        Flags::FAST.union(Flags::READONLY),
        lolwut,
    ),
    ServerCommand {
        tips: &["nondeterministic_output"],
        ..command(
            "time",
            "Returns the server's time.",
            "2.6.0",
            1,
            Flags::FAST.union(Flags::LOADING).union(Flags::STALE),
            time,
        )
    },
];

/// `TIME`: in a transaction or a script, when that began.
fn time(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let now_us = context.worker.clock.now_us();
    context.reply.array(2);
    context.reply.bulk_integer((now_us / 1_000_000) as i64);
    context.reply.bulk_integer((now_us % 1_000_000) as i64);
    Ok(Effect::None)
}

/// `LOLWUT [VERSION version] [columns rows]`
///
/// Every version draws the same: engraved stones, in a grid.
fn lolwut(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let mut sizes = &context.args[1..];
    if let [word, version, rest @ ..] = sizes
        && args::is(word, "VERSION")
    {
        args::integer(version)?;
        sizes = rest;
    }
    // Words that are no numbers are passed over, as Redis does.
    let size = |index: usize, built_in: i64| {
        let asked = sizes.get(index).and_then(|word| args::integer(word).ok());
        asked.unwrap_or(built_in).clamp(1, 20) as usize
    };
    let (columns, rows) = (size(0, 5), size(1, 2));
    let mut text = stones(columns, rows, &mut context.worker.random);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\nSeals were cut from carnelian, so that no one else could open what was closed.\n\
         Redis ver. {REDIS_VERSION} (Carnelian {CARNELIAN_VERSION})\n"
    );
    context.reply.verbatim(b"txt", text.as_bytes());
    Ok(Effect::None)
}

/// Stones side by side, each with a sign of its own.
fn stones(columns: usize, rows: usize, random: &mut fastrand::Rng) -> String {
    const SIGNS: [char; 12] = ['.', ':', '+', 'x', '*', 'o', '=', '|', '-', '^', '~', ' '];
    /// `?` is where the engraving goes; it is the same from left and right.
    const SHAPE: [&str; 5] =
        ["   ____   ", "  /????\\  ", " /??????\\ ", " \\??????/ ", "  \\____/  "];

    let mut text = String::new();
    for _ in 0..rows {
        let seeds: Vec<u64> = (0..columns).map(|_| random.u64(..)).collect();
        for (line, shape) in SHAPE.iter().enumerate() {
            for seed in &seeds {
                let mut sign = fastrand::Rng::with_seed(seed.wrapping_add(line as u64));
                let half: Vec<char> = (0..5).map(|_| SIGNS[sign.usize(..SIGNS.len())]).collect();
                for (place, mark) in shape.chars().enumerate() {
                    let mirrored = place.min(shape.len() - 1 - place);
                    text.push(if mark == '?' { half[mirrored] } else { mark });
                }
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stones_stand_in_a_grid_and_are_symmetric() {
        let text = stones(3, 2, &mut fastrand::Rng::with_seed(7));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 10);
        for line in lines {
            assert_eq!(line.len(), 30);
            let mirrored: String = line[..10]
                .chars()
                .rev()
                .map(|mark| match mark {
                    '/' => '\\',
                    '\\' => '/',
                    mark => mark,
                })
                .collect();
            assert_eq!(line[..10], mirrored);
        }
    }
}
